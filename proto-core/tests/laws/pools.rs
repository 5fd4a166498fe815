//! The pools beside their reference model: one owner for each lease, never above a limit, everybody answered in time.

use gprxy_proto::entropy::Entropy as _;
use gprxy_proto::pool::law::walk;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;

#[test]
fn law_pool_one_owner_within_the_limits_and_everybody_answered() {
    check("law_pool", 3000, |seed| {
        let mut dice = Dice::new(seed);
        let mut choices = vec![0; 200 + dice.length(800)];
        dice.fill(&mut choices);
        let _ = walk(&choices);
    });
}

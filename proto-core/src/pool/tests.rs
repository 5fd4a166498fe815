use super::law;

#[test]
fn obeys_the_law_on_random_walks() {
    let (mut granted, mut refused) = (0, 0);
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let choices: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(8_000).collect();
        let (g, r) = std::panic::catch_unwind(|| law::walk(&choices)).unwrap_or_else(|_| panic!("seed {seed}"));
        granted += g;
        refused += r;
    }
    assert!(granted > 20_000 && refused > 20_000, "{granted} granted, {refused} refused: the walk avoids the work");
}

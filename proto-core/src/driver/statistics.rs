//! What has happened in each database since the process began.
//!
//! A session counts on its own card; here is what those have done that have ended, and the sums of a while ago that averages
//! are worked out from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::console::snapshot::{DatabaseStatistics, Figures};
use crate::time::Tick;

/// Databases that are told apart. The names are those of the settings, or, with a `*` there, any: the sums of what comes
/// behind so many are one.
const MAX_DATABASES: usize = 1024;

type Sums = BTreeMap<Arc<str>, Figures>;

/// Sums by database.
pub(super) struct Statistics {
    ended: Sums,
    /// The sums, live sessions included, at the end of the last period and of the one before it, and when that was.
    last: (Tick, Sums),
    before: (Tick, Sums),
}

impl Statistics {
    pub(super) const fn new(now: Tick) -> Self {
        Self { ended: Sums::new(), last: (now, Sums::new()), before: (now, Sums::new()) }
    }

    /// A session of this database has ended.
    pub(super) fn fold(&mut self, database: &Arc<str>, figures: &Figures) {
        add(&mut self.ended, database, figures);
    }

    /// The sums, with what those have done that have not ended.
    fn sums(&self, live: impl IntoIterator<Item = (Arc<str>, Figures)>) -> Sums {
        let mut sums = self.ended.clone();
        for (database, figures) in live {
            add(&mut sums, &database, &figures);
        }
        sums
    }

    /// A period has ended.
    pub(super) fn turn(&mut self, live: impl IntoIterator<Item = (Arc<str>, Figures)>, now: Tick) {
        let sums = self.sums(live);
        self.before = std::mem::replace(&mut self.last, (now, sums));
    }

    /// How it stands. As with PgBouncer averages are of the last whole period and what has passed of this one.
    pub(super) fn look(
        &self,
        live: impl IntoIterator<Item = (Arc<str>, Figures)>,
        now: Tick,
    ) -> Vec<DatabaseStatistics> {
        let (since, before) = &self.before;
        let period = now.since(*since);
        let sums = self.sums(live).into_iter();
        sums.map(|(name, now)| {
            let before = before.get(&name).copied().unwrap_or_default();
            DatabaseStatistics { name, now, before, period }
        })
        .collect()
    }
}

fn add(sums: &mut Sums, database: &Arc<str>, figures: &Figures) {
    let known = sums.contains_key(database) || sums.len() < MAX_DATABASES;
    let place = if known { database.clone() } else { crate::policy::Databases::ANY.into() };
    sums.entry(place).or_default().add(figures);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queries(queries: u64) -> Figures {
        Figures { queries, ..Figures::default() }
    }

    #[test]
    fn what_has_ended_and_what_lives_is_counted_once() {
        let mut statistics = Statistics::new(Tick::default());
        let (app, other): (Arc<str>, Arc<str>) = ("app".into(), "other".into());
        statistics.fold(&app, &queries(3));
        statistics.fold(&app, &queries(4));
        let look = statistics.look([(app.clone(), queries(5)), (other, queries(1))], Tick::default());
        assert_eq!(look.iter().map(|it| (&*it.name, it.now.queries)).collect::<Vec<_>>(), [("app", 12), ("other", 1)]);
    }

    #[test]
    fn averages_are_of_the_last_whole_period_and_this_one() {
        let mut statistics = Statistics::new(Tick::default());
        let app: Arc<str> = "app".into();
        let at = |seconds| Tick::default().after(Duration::from_secs(seconds));
        statistics.turn([(app.clone(), queries(10))], at(60));
        statistics.turn([(app.clone(), queries(25))], at(120));
        let look = statistics.look([(app, queries(30))], at(130));
        assert_eq!((look[0].now.queries, look[0].before.queries), (30, 10));
        assert_eq!(look[0].period, Duration::from_secs(70));
    }

    #[test]
    fn names_without_end_take_no_memory_without_end() {
        let mut statistics = Statistics::new(Tick::default());
        for n in 0..3000 {
            statistics.fold(&format!("d{n}").into(), &queries(1));
        }
        let look = statistics.look([], Tick::default());
        assert_eq!(look.len(), MAX_DATABASES + 1);
        assert_eq!(look.iter().map(|it| it.now.queries).sum::<u64>(), 3000);
    }
}

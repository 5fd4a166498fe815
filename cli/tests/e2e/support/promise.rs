//! Promises about what a proxy must not change, held against PostgreSQL itself and against gprxy in front of it.

/// Defines a promise over a [`Target`](super::target::Target) and three tests of it: directly, in front of
/// PostgreSQL 15, and in front of 18.
macro_rules! unchanged {
    ($(#[$doc:meta])* fn $name:ident($target:ident) $body:block) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every promise needs all that its module imports")]
            use super::*;
            use crate::support::gprxy::Config;
            use crate::support::postgres::Version;
            use crate::support::target::Target;

            fn promise($target: &Target) $body

            fn through_gprxy(version: Version) {
                let mut gprxy = Config::new(version).start();
                promise(&gprxy.target("bob"));
                gprxy.assert_alive();
            }

            #[test]
            fn directly() {
                promise(&Target::direct(Version::V15));
                promise(&Target::direct(Version::V18));
            }

            #[test]
            fn through_gprxy_to_15() {
                through_gprxy(Version::V15);
            }

            #[test]
            fn through_gprxy_to_18() {
                through_gprxy(Version::V18);
            }
        }
    };
}

pub(crate) use unchanged;

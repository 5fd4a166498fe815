//! What the driver expects of a runtime, over real sockets.

use rustix::process::{Resource, getrlimit, setrlimit};

gprxy_proto::conformance!(gprxy_tokio::Tokio, before each: raise_descriptor_limit);

/// As `gprxy start` does it. Where the system allows less, the test that needs more says so.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit can be raised up to its maximum");
}

//! gprxy on tokio.

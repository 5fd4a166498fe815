//! gprxy on smol.

//! Our own cancel keys, and who may cancel what.

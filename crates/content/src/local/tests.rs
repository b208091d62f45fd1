//! Sources built by hand, member by member, so that each can be wrong in one way.

mod hostile;
mod prepared;
mod samples;
mod sources;

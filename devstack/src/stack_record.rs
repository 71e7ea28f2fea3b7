//! stub
/// x
pub struct RunningServer;
/// x
pub struct StackRecord;

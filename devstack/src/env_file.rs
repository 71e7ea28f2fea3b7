//! stub
/// x
pub struct EnvFile;

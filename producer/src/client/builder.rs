//! How a client is made.

use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::Client;
use super::calls::Calls;
use super::error::ClientError;
use super::following::Shared;
use crate::v1::tasks_client::TasksClient;

/// Largest answer that is taken.
const MOST_BYTES: usize = 64 << 20;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a call may take: a front door itself waits 10 s for Kafka, unless it is told otherwise.
const CALL: Duration = Duration::from_secs(30);
/// How often a quiet connection is asked whether the other side is there.
const ALIVE_EVERY: Duration = Duration::from_secs(20);

/// What a client is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    address: String,
    key: Option<String>,
    authority: Option<Vec<u8>>,
    call_timeout: Duration,
}

impl Builder {
    pub(super) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            key: None,
            authority: None,
            call_timeout: CALL,
        }
    }

    /// With this API key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Trusts certificates of this authority (PEM) instead of those that the system trusts.
    #[must_use]
    pub fn certificate_authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Gives up a call that is not answered within this time, 30 s if nothing is said. A submit given up so is
    /// [`ClientError::OutcomeUnknown`]; a stream has to begin within it, and a handle goes on asking.
    #[must_use]
    pub fn call_timeout(mut self, time: Duration) -> Self {
        self.call_timeout = time;
        self
    }

    /// A client. The connection is made with the first call, and again whenever it breaks.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Key`]; a key that is not known is refused with the first call.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let address = |_| ClientError::Address(self.address.clone());
        let mut endpoint = Endpoint::from_shared(self.address.clone()).map_err(address)?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                let tls = match &self.authority {
                    Some(pem) if has_certificate(pem) => {
                        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
                    }
                    Some(_) => return Err(ClientError::Address(self.address)),
                    None => ClientTlsConfig::new().with_native_roots(),
                };
                endpoint = endpoint.tls_config(tls).map_err(address)?;
            }
            _ => return Err(ClientError::Address(self.address)),
        }
        let endpoint = endpoint
            // Before the call is given up, so that it is known that nothing was sent.
            .connect_timeout(CONNECT.min(self.call_timeout / 2))
            .http2_keep_alive_interval(ALIVE_EVERY)
            .keep_alive_while_idle(true);
        let key = self.key.as_deref().map(bearer).transpose()?;
        let tasks = TasksClient::new(endpoint.connect_lazy()).max_decoding_message_size(MOST_BYTES);
        Ok(Client(Shared::start(Calls {
            tasks,
            key,
            timeout: self.call_timeout,
        })))
    }
}

fn has_certificate(pem: &[u8]) -> bool {
    matches!(CertificateDer::pem_slice_iter(pem).next(), Some(Ok(_)))
}

fn bearer(key: &str) -> Result<MetadataValue<Ascii>, ClientError> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}")
        .parse()
        .map_err(|_| ClientError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

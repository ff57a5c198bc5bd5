//! How etcd and this node know each other: certificates, and the user's password, from files. What is wrong with them is said when the
//! configuration is read.

use serde::Deserialize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The section `[etcd]`; files as `etcdctl` calls them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Section {
    /// `host:port` each.
    pub(crate) endpoints: Vec<String>,
    /// Tells clusters that share an etcd apart.
    #[serde(default = "default_cluster")]
    pub(crate) cluster: String,
    user: Option<String>,
    /// Nothing but the password is in it.
    password_file: Option<PathBuf>,
    /// Who vouches for etcd: with it, TLS is spoken.
    cacert: Option<PathBuf>,
    /// Who this node is, with its key: for an etcd that asks.
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn default_cluster() -> String {
    "pollux".into()
}

/// What came of it.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) user: Option<(String, String)>,
    pub(crate) tls: Option<TlsConnector>,
}

impl Section {
    /// Reads the files.
    ///
    /// # Errors
    /// If one is missing, or is not what it should be, or others may read what is secret.
    pub(crate) fn access(&self) -> Result<Access, String> {
        let user = match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), secret(file)?.trim().to_owned())),
            (None, None) => None,
            _ => return Err("[etcd] needs `user` and `password-file` together".into()),
        };
        let tls = match (&self.cacert, &self.cert, &self.key) {
            (None, None, None) => None,
            (Some(ca), None, None) => Some(tls(ca, None)?),
            (Some(ca), Some(cert), Some(key)) => Some(tls(ca, Some((cert, key)))?),
            _ => return Err("[etcd] needs `cacert` for TLS, and `cert` and `key` together".into()),
        };
        Ok(Access { user, tls })
    }
}

fn secret(file: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mode = std::fs::metadata(file).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let file = file.display();
        return Err(format!("{file}: others may read it: chmod 600 {file}"));
    }
    std::fs::read_to_string(file).map_err(failed)
}

fn tls(ca: &Path, identity: Option<(&PathBuf, &PathBuf)>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.3")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let pem = PrivateKeyDer::from_pem_slice(secret(key)?.as_bytes())
                .map_err(|error| format!("{}: no private key: {error}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, pem)
                .map_err(|error| format!("{}, {}: {error}", cert.display(), key.display()))?
        }
    };
    Ok(Arc::new(config).into())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(|found| found.collect());
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{}: no certificate is in it", file.display())),
        Err(error) => Err(format!("{}: no certificate: {error}", file.display())),
    }
}

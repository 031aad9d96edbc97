//! `quorate certs`: a certificate authority, one certificate per node, and the secrets file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use quorate_node::config::Secrets;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::args::CertsArgs;

pub(crate) fn run(args: &CertsArgs) -> anyhow::Result<()> {
    make(&args.out, &args.nodes)?;
    println!(
        "Wrote the files for {} nodes to {}.",
        args.nodes.len(),
        args.out.display()
    );
    println!("Each node needs ca.pem, secrets.toml, its node-N.pem and node-N-key.pem.");
    println!("Keep ca-key.pem away from the nodes: it can make new ones.");
    Ok(())
}

fn make(out: &Path, hosts: &[String]) -> anyhow::Result<()> {
    if hosts.iter().any(|host| host.trim().is_empty()) {
        bail!("--nodes has an empty host");
    }
    std::fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    // All is drawn before anything is written, so that a failure leaves no half of a set.
    let ca_key = KeyPair::generate().context("draw the authority's key")?;
    let ca_params = authority();
    let ca = ca_params
        .self_signed(&ca_key)
        .context("sign the authority's certificate")?;
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = Issuer::new(ca_params, ca_key);
    let mut files = vec![
        ("ca.pem".to_owned(), ca.pem(), 0o644),
        ("ca-key.pem".to_owned(), ca_key_pem, 0o600),
    ];
    for (id, host) in (1..).zip(hosts) {
        let key = KeyPair::generate().context("draw a node's key")?;
        let certificate = node(id, host.trim())
            .and_then(|params| Ok(params.signed_by(&key, &issuer)?))
            .with_context(|| format!("make a certificate for `{host}`"))?;
        files.push((format!("node-{id}.pem"), certificate.pem(), 0o644));
        files.push((format!("node-{id}-key.pem"), key.serialize_pem(), 0o600));
    }
    let names = files
        .iter()
        .map(|(name, ..)| name.as_str())
        .chain(["secrets.toml"]);
    if let Some(name) = names.into_iter().find(|name| out.join(name).exists()) {
        bail!(
            "{} exists: nodes may use it, so it is not replaced",
            out.join(name).display()
        );
    }
    for (name, text, mode) in &files {
        let path = out.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Secrets::generate()?.save(&out.join("secrets.toml"))?;
    Ok(())
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, "Quorate cluster");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Every node is both ends of a connection, and is known by `node-N.quorate` wherever it runs.
fn node(id: u64, host: &str) -> anyhow::Result<CertificateParams> {
    let name = format!("node-{id}.quorate");
    let mut params = CertificateParams::new(vec![name.clone(), host.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Secrets, make};

    #[test]
    fn keys_and_passwords_are_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["db1.example".to_owned(), "10.0.0.2".to_owned()];
        make(folder.path(), &hosts).unwrap();
        for name in [
            "ca-key.pem",
            "node-1-key.pem",
            "node-2-key.pem",
            "secrets.toml",
        ] {
            let mode = folder
                .path()
                .join(name)
                .metadata()
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        Secrets::load(&folder.path().join("secrets.toml")).unwrap();
    }

    #[test]
    fn files_that_nodes_may_use_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["db1.example".to_owned()];
        make(folder.path(), &hosts).unwrap();
        let before = std::fs::read(folder.path().join("node-1.pem")).unwrap();
        assert!(make(folder.path(), &hosts).is_err());
        assert_eq!(
            std::fs::read(folder.path().join("node-1.pem")).unwrap(),
            before
        );
    }
}

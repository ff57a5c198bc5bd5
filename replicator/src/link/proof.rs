//! Proof that both ends know the shared secret: HMAC-SHA256 over the end's name and both hellos, as they were sent. The
//! hellos hold both nonces, so no proof is worth anything a second time; the end's name makes one end's proof useless for
//! the other (no reflection). This authenticates the beginning of a connection and encrypts nothing.

use super::config::Secret;
use crate::wire::{End, HELLO_LEN, PROOF_LEN};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Both hellos of a connection, as bytes.
pub(super) struct Transcript {
    pub(super) dialer: [u8; HELLO_LEN],
    pub(super) acceptor: [u8; HELLO_LEN],
}

impl Transcript {
    /// What `end` shows; zeros without a secret.
    pub(super) fn prove(&self, secret: Option<&Secret>, end: End) -> [u8; PROOF_LEN] {
        match secret {
            Some(secret) => self.mac(secret, end).finalize().into_bytes().into(),
            None => [0; PROOF_LEN],
        }
    }

    /// Does `end` know our secret? Without one, anybody does.
    pub(super) fn believes(&self, secret: Option<&Secret>, end: End, proof: &[u8]) -> bool {
        // `verify_slice` takes the same time whatever the proof is.
        secret.is_none_or(|secret| self.mac(secret, end).verify_slice(proof).is_ok())
    }

    fn mac(&self, secret: &Secret, end: End) -> Hmac<Sha256> {
        let name: &[u8] = match end {
            End::Dialer => b"pollux link 1, dialer",
            End::Acceptor => b"pollux link 1, acceptor",
        };
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.bytes());
        let mac = mac.expect("HMAC takes keys of any length");
        mac.chain_update(name).chain_update(self.dialer).chain_update(self.acceptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_end_one_secret_and_one_pair_of_hellos() {
        let transcript = Transcript { dialer: [1; HELLO_LEN], acceptor: [2; HELLO_LEN] };
        let (ours, other) = (Secret::new("castor"), Secret::new("pollux"));
        let proof = transcript.prove(Some(&ours), End::Dialer);
        assert!(transcript.believes(Some(&ours), End::Dialer, &proof));
        assert!(!transcript.believes(Some(&ours), End::Acceptor, &proof), "reflected");
        assert!(!transcript.believes(Some(&other), End::Dialer, &proof), "another secret");
        assert!(!transcript.believes(Some(&ours), End::Dialer, &proof[1..]), "cut");
        for (dialer, acceptor) in
            [([3; HELLO_LEN], [2; HELLO_LEN]), ([2; HELLO_LEN], [1; HELLO_LEN])]
        {
            let replayed = Transcript { dialer, acceptor };
            assert!(!replayed.believes(Some(&ours), End::Dialer, &proof), "another connection");
        }
    }
}

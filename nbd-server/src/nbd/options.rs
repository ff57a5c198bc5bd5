//! Decodes the payloads of options. Whole payloads in, values out; a malformed one is an error
//! text for the client. What an option means is `handshake`'s business.

use super::protocol::{BASE_ALLOCATION, MAX_STRING, Take, info};

/// Why a payload is malformed; sent to the client as it is.
pub(super) type Malformed = &'static str;

/// Payload of INFO and GO.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InfoRequest {
    pub(super) name: String,
    pub(super) wants_name: bool,
    pub(super) wants_description: bool,
}

/// Payload of LIST_META_CONTEXT and SET_META_CONTEXT, reduced to the one context there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MetaRequest {
    pub(super) name: String,
    /// `base:allocation` was named.
    pub(super) exact: bool,
    /// `base:` was named, or nothing: LIST shows all, SET selects none.
    pub(super) all: bool,
}

pub(super) fn string(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.len() > MAX_STRING {
        return Err("a string is longer than 4096 bytes");
    }
    if bytes.contains(&0) {
        return Err("a string contains NUL");
    }
    std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8")
}

fn counted_string<'a>(payload: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let length = payload.u32().ok_or("the option ends before the length of a string")?;
    let length = usize::try_from(length).map_err(|_| "a string is too long")?;
    string(payload.take(length).ok_or("a string reaches beyond the option")?)
}

pub(super) fn info_request(mut payload: &[u8]) -> Result<InfoRequest, Malformed> {
    let name = counted_string(&mut payload)?.to_owned();
    let count = payload.u16().ok_or("the option ends before the number of requests")?;
    if payload.len() != usize::from(count) * 2 {
        return Err("the number of requests does not match the length of the option");
    }
    let mut request = InfoRequest { name, wants_name: false, wants_description: false };
    while let Some(kind) = payload.u16() {
        match kind {
            info::NAME => request.wants_name = true,
            info::DESCRIPTION => request.wants_description = true,
            // EXPORT and BLOCK_SIZE are always sent; unknown ones must be ignored.
            _ => {}
        }
    }
    Ok(request)
}

pub(super) fn meta_request(mut payload: &[u8]) -> Result<MetaRequest, Malformed> {
    let name = counted_string(&mut payload)?.to_owned();
    let count = payload.u32().ok_or("the option ends before the number of queries")?;
    let mut request = MetaRequest { name, exact: false, all: count == 0 };
    for _ in 0..count {
        // Unknown namespaces, and queries without any, are no error and select nothing.
        match counted_string(&mut payload)? {
            BASE_ALLOCATION => request.exact = true,
            "base:" => request.all = true,
            _ => {}
        }
    }
    if payload.is_empty() { Ok(request) } else { Err("bytes follow the last query") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::protocol::Put;

    fn go(name: &[u8], infos: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.u32(name.len() as u32).bytes(name).u16(infos.len() as u16);
        infos.iter().for_each(|kind| {
            bytes.u16(*kind);
        });
        bytes
    }

    fn meta(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.u32(name.len() as u32).bytes(name).u32(queries.len() as u32);
        queries.iter().for_each(|query| {
            bytes.u32(query.len() as u32).bytes(query);
        });
        bytes
    }

    #[test]
    fn info_requests_are_understood() {
        let request = info_request(&go(b"r0", &[99, 3, 1])).unwrap();
        assert_eq!(
            request,
            InfoRequest { name: "r0".into(), wants_name: true, wants_description: false }
        );
        assert_eq!(info_request(&go(b"", &[])).unwrap().name, "");
    }

    #[test]
    fn every_truncation_and_every_extension_of_a_request_is_malformed() {
        for whole in [go(b"r0", &[1, 2]), meta(b"r0", &[b"base:allocation", b"x:y"])] {
            let is_meta = whole.len() > 20;
            let parse = |bytes: &[u8]| match is_meta {
                true => meta_request(bytes).map(|_| ()),
                false => info_request(bytes).map(|_| ()),
            };
            assert!(parse(&whole).is_ok());
            for cut in 0..whole.len() {
                assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
            }
            assert!(parse(&[&whole[..], b"\0"].concat()).is_err());
        }
    }

    #[test]
    fn bad_strings_are_malformed() {
        for name in [&[b'a'; 4097][..], b"a\0b", b"\xff\xfe"] {
            assert!(info_request(&go(name, &[])).is_err());
            assert!(meta_request(&meta(name, &[])).is_err());
            assert!(meta_request(&meta(b"r0", &[name])).is_err());
        }
        assert!(info_request(&go(&[b'a'; 4096], &[])).is_ok());
    }

    #[test]
    fn queries_select_by_exact_name_or_namespace() {
        let table: [(&[&[u8]], bool, bool); 6] = [
            (&[], false, true),
            (&[b"base:"], false, true),
            (&[b"base:allocation"], true, false),
            (&[b"base:allocation", b"base:allocation"], true, false),
            (&[b"qemu:dirty-bitmap:x", b"nocolon", b""], false, false),
            (&[b"base:allocation-depth", b"base:alloc"], false, false),
        ];
        for (queries, exact, all) in table {
            let request = meta_request(&meta(b"r0", queries)).unwrap();
            assert_eq!((request.exact, request.all), (exact, all), "{queries:?}");
        }
    }
}

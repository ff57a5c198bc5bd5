//! `docs/metadata.md` says what the code does: its tables are compared with the code's constants,
//! its flags and magics with the bytes written.

use bitmap::{
    Bytes, DeviceFlags, FormatParams, MetaWrite, Metadata, NodeId, Placement, RECORDS, SlotFlags,
};
use std::collections::BTreeMap;

const DOC: &str = include_str!("../../docs/metadata.md");

/// The rows of every table, by the heading above it and the table's first header cell.
fn tables() -> BTreeMap<(String, String), Vec<Vec<String>>> {
    let mut tables: BTreeMap<_, Vec<Vec<String>>> = BTreeMap::new();
    let mut heading = String::new();
    let mut table = None;
    for line in DOC.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.to_owned();
        }
        let Some(row) = line.strip_prefix('|') else {
            table = None;
            continue;
        };
        let mut cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(cells.pop().as_deref(), Some(""), "the row ends with a bar: {line}");
        match &table {
            None => {
                let key = (heading.clone(), cells[0].clone());
                assert!(tables.insert(key.clone(), Vec::new()).is_none(), "two tables {key:?}");
                table = Some(key);
            }
            Some(_) if cells.iter().all(|cell| cell == "---") => {}
            Some(key) => tables.get_mut(key).expect("it was inserted").push(cells),
        }
    }
    tables
}

fn table(heading: &str, first: &str) -> Vec<Vec<String>> {
    let key = (heading.to_owned(), first.to_owned());
    tables().remove(&key).unwrap_or_else(|| panic!("no table {key:?}"))
}

#[test]
fn every_field_is_documented_where_it_is() {
    let sizes = [bitmap::SUPERBLOCK_SIZE, 64, bitmap::SECTOR, 6, bitmap::SECTOR];
    for ((name, fields), size) in RECORDS.into_iter().zip(sizes) {
        let rows = table(&format!("Record: {name}"), "offset");
        let documented: Vec<(usize, usize, String)> = rows
            .iter()
            .map(|row| {
                (
                    row[0].parse().expect("a number"),
                    row[1].parse().expect("a number"),
                    row[2].clone(),
                )
            })
            .collect();
        let coded: Vec<(usize, usize, String)> =
            fields.iter().map(|field| (field.offset, field.size, field.name.to_owned())).collect();
        assert_eq!(documented, coded, "{name}");
        // No gap, no overlap, to the end of the record.
        let mut end = 0;
        for field in fields {
            assert_eq!(field.offset, end, "{name}: {}", field.name);
            end += field.size;
        }
        assert_eq!(end, size, "{name}");
    }
    let records = tables()
        .keys()
        .filter(|(heading, first)| heading.starts_with("Record: ") && first == "offset")
        .count();
    assert_eq!(records, RECORDS.len(), "no table of a record that does not exist");
}

#[test]
fn constants() {
    let rows = table("Areas", "constant");
    let documented: Vec<(String, u64)> =
        rows.iter().map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect();
    let coded = [
        ("SECTOR", bitmap::SECTOR as u64),
        ("SUPERBLOCK_SIZE", bitmap::SUPERBLOCK_SIZE as u64),
        ("COPY_DISTANCE", bitmap::COPY_DISTANCE),
        ("AREA_ALIGN", bitmap::AREA_ALIGN),
        ("LEAF_BITS", bitmap::LEAF_BITS),
        ("MAX_SLOTS", bitmap::MAX_SLOTS as u64),
        ("FORMAT_VERSION", u64::from(bitmap::FORMAT_VERSION)),
    ];
    assert_eq!(documented, coded.map(|(name, value)| (name.to_owned(), value)));
}

fn fresh() -> (Metadata, Vec<MetaWrite>) {
    let (metadata, stages) = Metadata::format(FormatParams {
        placement: Placement::External,
        device_size: 1 << 20,
        data_size: Some(1 << 30),
        size: None,
        node_id: NodeId(5),
        device_uuid: 0x0102_0304_0506_0708,
        slots: vec![NodeId(7)],
        al_slots: 100,
        al_sectors: 40,
        block_size: 4096,
        extent_size: 4 << 20,
        logical_block_size: 512,
    })
    .expect("it fits");
    (metadata, stages.concat())
}

/// The documented place of a field.
fn place(record: &str, field: &str) -> std::ops::Range<usize> {
    let rows = table(&format!("Record: {record}"), "offset");
    let row = rows.iter().find(|row| row[2] == field).unwrap_or_else(|| panic!("no {field}"));
    let start: usize = row[0].parse().expect("a number");
    start..start + row[1].parse::<usize>().expect("a number")
}

fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn data(write: &MetaWrite) -> &[u8] {
    match &write.bytes {
        Bytes::Data(data) => data,
        Bytes::Zeros(_) => &[],
    }
}

/// The documented places hold what the documentation says, in the bytes create-md writes.
#[test]
fn bytes() {
    let (_, writes) = fresh();
    // Neighbours may be joined: the bytes from there to the end of the write.
    let at = |offset: u64| {
        let tail = |write: &'_ MetaWrite| {
            let skip = usize::try_from(offset.checked_sub(write.offset)?).ok()?;
            Some(skip).filter(|&skip| skip < data(write).len())
        };
        let found = writes.iter().rev().find_map(|write| Some(&data(write)[tail(write)?..]));
        found.unwrap_or_else(|| panic!("nothing written at {offset}"))
    };
    let (superblock, log, slots) = (&at(65536)[..4096], at(69632), at(69632 + 40 * 512));
    let get = |record: &str, bytes: &[u8], field: &str| integer(&bytes[place(record, field)]);
    assert_eq!(&superblock[place("superblock", "magic")], b"PolluxSB");
    for (field, value) in [
        ("version", 1),
        ("offset", 65536),
        ("sequence", 1),
        ("device_uuid", 0x0102_0304_0506_0708),
        ("node_id", 5),
        ("placement", 1),
        ("slot_count", 1),
        ("size", 1 << 30),
        ("device_size", 1 << 20),
        ("data_size", 1 << 30),
        ("block_size", 4096),
        ("extent_size", 4 << 20),
        ("logical_block_size", 512),
        ("al_slots", 100),
        ("al_sectors", 40),
        ("log_floor", 41),
        ("members", 1 << 5 | 1 << 7),
        ("current", 4),
    ] {
        assert_eq!(get("superblock", superblock, field), value, "{field}");
    }
    let slot = &superblock[place("superblock", "slots")][..64];
    for (field, value) in [("kind", 1), ("node_id", 7), ("epoch", 1), ("default_set", 1)] {
        assert_eq!(get("superblock slot", slot, field), value, "{field}");
    }
    // Position 3 of a fresh ring.
    let sector = &log[3 * 512..4 * 512];
    assert_eq!(&sector[place("log sector", "magic")], b"PlxL");
    for (field, value) in [
        ("device_uuid", 0x0102_0304_0506_0708),
        ("sequence", 3),
        ("batch_start", 3),
        ("position", 3),
        ("update_count", 0),
        ("context_start", 72),
    ] {
        assert_eq!(get("log sector", sector, field), value, "{field}");
    }
    assert!(sector[place("log sector", "context")].iter().all(|&byte| byte == 0xff));
    let summary = &slots[..512];
    assert_eq!(&summary[place("bitmap sector", "magic")], b"PlxB");
    for (field, value) in
        [("device_uuid", 0x0102_0304_0506_0708), ("slot", 0), ("level", 1), ("epoch", 1)]
    {
        assert_eq!(get("bitmap sector", summary, field), value, "{field}");
    }
    // The checksum is what the documentation says it is.
    for (record, bytes) in
        [("superblock", superblock), ("log sector", sector), ("bitmap sector", summary)]
    {
        let mut zeroed = bytes.to_vec();
        zeroed[place(record, "crc32")].fill(0);
        let crc = u64::from(crc32fast::hash(&zeroed));
        assert_eq!(get(record, bytes, "crc32"), crc, "{record}");
    }
}

/// One flag at a time, set by name and found in its documented bit.
#[test]
fn flags() {
    type Device = fn(&mut DeviceFlags) -> &mut bool;
    let device: [(&str, Device); 7] = [
        ("consistent", |flags| &mut flags.consistent),
        ("was_up_to_date", |flags| &mut flags.was_up_to_date),
        ("primary_ind", |flags| &mut flags.primary_ind),
        ("crashed_primary", |flags| &mut flags.crashed_primary),
        ("al_clean", |flags| &mut flags.al_clean),
        ("have_quorum", |flags| &mut flags.have_quorum),
        ("primary_lost_quorum", |flags| &mut flags.primary_lost_quorum),
    ];
    type Peer = fn(&mut SlotFlags) -> &mut bool;
    let peer: [(&str, Peer); 6] = [
        ("no_bitmap", |flags| &mut flags.no_bitmap),
        ("outdated", |flags| &mut flags.outdated),
        ("fencing", |flags| &mut flags.fencing),
        ("full_sync", |flags| &mut flags.full_sync),
        ("device_seen", |flags| &mut flags.device_seen),
        ("lost_member", |flags| &mut flags.lost_member),
    ];
    let written = |edit: &dyn Fn(&mut bitmap::Superblock)| {
        let (mut metadata, _) = fresh();
        metadata.edit(edit);
        let commit = metadata.start_commit().expect("an edit");
        data(&commit.stages[0][0]).to_vec()
    };
    let rows = |record| {
        let rows = table(record, "bit");
        rows.into_iter().map(|row| (row[1].clone(), row[0].parse::<u32>().expect("a number")))
    };
    let documented: Vec<_> = rows("Record: superblock").collect();
    assert_eq!(documented.len(), device.len());
    for ((name, bit), (coded, field)) in documented.into_iter().zip(device) {
        let bytes = written(&|superblock| *field(&mut superblock.flags) = true);
        assert_eq!(
            (name.as_str(), integer(&bytes[place("superblock", "flags")])),
            (coded, 1 << bit)
        );
    }
    let documented: Vec<_> = rows("Record: superblock slot").collect();
    assert_eq!(documented.len(), peer.len());
    for ((name, bit), (coded, field)) in documented.into_iter().zip(peer) {
        let bytes = written(&|superblock| *field(&mut superblock.slots[0].flags) = true);
        let slot = &bytes[place("superblock", "slots")][..64];
        let word = integer(&slot[place("superblock slot", "flags")]);
        assert_eq!((name.as_str(), word), (coded, 1 << bit));
    }
}

use countersign_idcard::TEXT_LEN;
use countersign_idcard::record::{DocumentType, IdRecord, id_number_is_valid};

/// A text record: what decodes, encodes to the same record, also by way of JSON, and prints
/// nothing of its holder. Shorter input is filled with blanks.
pub fn record(data: &[u8]) {
    let blanks = [0x20, 0x00].into_iter().cycle();
    let mut text = [0; TEXT_LEN];
    for (place, byte) in text.iter_mut().zip(blanks) {
        *place = byte;
    }
    let len = data.len().min(TEXT_LEN);
    text[..len].copy_from_slice(&data[..len]);
    let Ok(record) = IdRecord::decode(&text) else { return };
    assert_eq!(DocumentType::of(&text), Some(record.document_type()));
    assert_eq!(format!("{record:?}"), format!("IdRecord({})", record.document_type().name()));
    if record.document_type() != DocumentType::Foreigner2017 {
        assert!(id_number_is_valid(record.id_number()));
    }
    let again = record.encode().expect("what decodes, encodes");
    assert!(IdRecord::decode(&again) == Ok(record.clone()));
    let json = serde_json::to_vec(&record).expect("records have JSON");
    assert!(serde_json::from_slice::<IdRecord>(&json).ok() == Some(record));
}

use countersign_idcard::card::{
    APDU_LEN_MAX, CardDone, CardError, CardLink, CardPresent, CardWork, read_configuration,
};
use countersign_idcard::{CONFIGURATION_LEN, Configuration, ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX};
use zeroize::Zeroizing;

use crate::script::Script;

/// Most APDUs of one work: five files of at most ten chunks and their selections.
const APDUS_MAX: usize = 64;

/// A card that answers as the script says: mostly well, else anything.
struct Card<'a> {
    script: Script<'a>,
    apdus: usize,
}

impl CardLink for Card<'_> {
    fn poll(&mut self) -> Result<Option<CardPresent>, CardError> {
        Ok(Some(CardPresent { uid: self.script.array() }))
    }

    fn transceive(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
        self.apdus += 1;
        assert!((5..=APDU_LEN_MAX).contains(&apdu.len()), "{apdu:02x?}");
        // What the command asks for: Le of a read, nothing after a selection or a proof.
        let len = match apdu[1] {
            0xB0 | 0x84 => usize::from(apdu[4]),
            0x88 => 8,
            _ => 0,
        };
        let mut answer = vec![self.script.byte(); len];
        let kind = self.script.byte();
        match kind {
            0..0xE0 => answer.extend([0x90, 0x00]),
            0xE0..0xE8 => answer = self.script.short().to_vec(),
            0xE8..0xF0 => answer.extend(self.script.array::<2>()),
            0xF0..0xF8 => answer = vec![0x6A, 0x82],
            0xF8 => return Err(CardError::Removed),
            0xF9 => return Err(CardError::Timeout),
            0xFA => answer.clear(),
            _ => {
                answer.push(kind);
                answer.extend([0x90, 0x00]);
            }
        }
        Ok(answer.into())
    }
}

/// The reader's words to its card, against any card. Script: `work, answers`.
pub fn card(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.byte();
    let work = match kind % 4 {
        0 => None,
        1 => Some(CardWork::Authenticate { challenge: script.array() }),
        _ => Some(CardWork::ReadEncrypted {
            proof: script.array(),
            fingerprint: kind % 4 == 3,
            configuration: Configuration::new([0; CONFIGURATION_LEN]),
        }),
    };
    let mut card = Card { script, apdus: 0 };
    match &work {
        None => drop(read_configuration(&mut card)),
        Some(work) => match (work, work.perform(&mut card)) {
            (_, Err(_)) | (CardWork::Authenticate { .. }, Ok(CardDone::Answer(_))) => {}
            (CardWork::ReadEncrypted { fingerprint, .. }, Ok(CardDone::Encrypted(data))) => {
                let len = data.as_bytes().len();
                let longer = len == ENCRYPTED_LEN_MAX && *fingerprint;
                assert!(len == ENCRYPTED_BASE_LEN || longer, "{len}");
            }
            (work, Ok(done)) => panic!("{work:?} gave {done:?}"),
        },
    }
    assert!(card.apdus <= APDUS_MAX, "{} APDUs", card.apdus);
}

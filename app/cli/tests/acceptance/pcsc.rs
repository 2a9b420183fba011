//! The security device as a card: behind a reader of a real PC/SC service, asked by the phone (D3).

#[cfg(feature = "pcsc")]
pub(crate) mod behind_readers;
#[cfg(feature = "pcsc")]
pub(crate) mod cut;
#[cfg(feature = "pcsc")]
pub(crate) mod foreign;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    #[cfg(feature = "pcsc")]
    return behind_readers::trials();
    #[cfg(not(feature = "pcsc"))]
    vec![Trial::test("a_build_without_readers_says_so", a_build_without_readers_says_so)]
}

#[cfg(not(feature = "pcsc"))]
fn a_build_without_readers_says_so() -> Result<(), libtest_mimic::Failed> {
    let host = crate::host::Host::new()?;
    let ended = host.run(&["--json", "device", "key", "show", "--reader"])?;
    let told = ended.json()?;
    assert_eq!((ended.code, &told["error"]["check"]), (1, &"pcsc-not-built".into()), "{told}");
    Ok(())
}

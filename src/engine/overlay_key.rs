//! The key of an overlay over an encrypted disk: made for one overlay, held in memory only, gone with
//! the run.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::engine::session::SessionError;

/// 256 random bits, in hexadecimal.
///
/// # Errors
/// When the system has none to give.
pub fn random() -> Result<Zeroizing<String>, SessionError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = Zeroizing::new([0_u8; 32]);
    File::open(source)
        .and_then(|mut random| random.read_exact(bytes.as_mut_slice()))
        .map_err(SessionError::file(source))?;
    let text = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(Zeroizing::new(text.collect()))
}

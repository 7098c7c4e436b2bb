//! Asks for passwords without showing them, and for a yes.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};

/// A password could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum PromptError {
    /// No terminal to ask at.
    #[error("there is no terminal to ask for the password at ({0}); use --password-stdin")]
    NoTerminal(io::Error),
    /// The terminal or standard input failed.
    #[error("cannot read the password: {0}")]
    Input(io::Error),
    /// Ctrl-C or Ctrl-D.
    #[error("no password was given; nothing was changed")]
    Cancelled,
    /// The two did not match.
    #[error("the two passwords differ; nothing was changed")]
    Differ,
}

/// Longest line read, bytes.
const LINE_BYTES_MAX: u64 = 4_096;

/// Asks twice at the terminal.
pub(super) fn new_password(name: &str) -> Result<String, PromptError> {
    let first = hidden(&format!("New password for {name}: "))?;
    let second = hidden("The same again: ")?;
    if first == second { Ok(first) } else { Err(PromptError::Differ) }
}

/// Takes the first line of standard input, without its line end.
pub(super) fn password_from(input: impl Read) -> Result<String, PromptError> {
    let mut line = String::new();
    io::BufReader::new(input.take(LINE_BYTES_MAX)).read_line(&mut line).map_err(PromptError::Input)?;
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() { Err(PromptError::Cancelled) } else { Ok(line.to_owned()) }
}

/// Asks on standard error; only `yes` is yes.
pub(super) fn confirm(question: &str) -> bool {
    eprint!("{question} Type yes to go on: ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line).is_ok() && line.trim() == "yes"
}

/// Asks at the terminal without showing what is typed.
pub(super) fn hidden(question: &str) -> Result<String, PromptError> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(PromptError::NoTerminal)?;
    let _quiet = Quiet::new(&terminal)?;
    terminal.write_all(question.as_bytes()).map_err(PromptError::Input)?;
    let typed = typed(&mut terminal);
    let _ = terminal.write_all(b"\n");
    typed
}

/// The terminal without echo, until dropped. Signals are off as well, so that Ctrl-C cannot leave it mute.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: &File) -> Result<Self, PromptError> {
        let failed = |error: rustix::io::Errno| PromptError::NoTerminal(error.into());
        let before = tcgetattr(terminal).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let terminal = terminal.try_clone().map_err(PromptError::NoTerminal)?;
        tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing to be done for a terminal that has gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Reads keys until Enter: Backspace takes one back, Ctrl-U all, Ctrl-C and Ctrl-D end it.
fn typed(input: &mut impl Read) -> Result<String, PromptError> {
    let mut line = Vec::new();
    let mut key = [0_u8; 1];
    loop {
        if input.read(&mut key).map_err(PromptError::Input)? == 0 {
            return Err(PromptError::Cancelled);
        }
        match key[0] {
            b'\r' | b'\n' => break,
            0x03 | 0x04 => return Err(PromptError::Cancelled),
            0x15 => line.clear(),
            0x08 | 0x7F => {
                // One letter may be several bytes; those after the first begin with the bits 10.
                while line.pop().is_some_and(|byte: u8| byte & 0xC0 == 0x80) {}
            }
            byte if line.len() < 4_096 => line.push(byte),
            _ => {}
        }
    }
    match String::from_utf8(line) {
        Ok(line) if line.is_empty() => Err(PromptError::Cancelled),
        Ok(line) => Ok(line),
        Err(_) => Err(PromptError::Input(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line() {
        let check = |keys: &[u8], expect: Option<&str>| {
            assert_eq!(typed(&mut &*keys).ok().as_deref(), expect, "{keys:?}");
        };
        check(b"secret\n", Some("secret"));
        check(b"secrex\x7Ft\r", Some("secret"));
        check("geh\u{e9}\u{7F}eim\n".as_bytes(), Some("geheim"));
        check(b"wrong\x15right\n", Some("right"));
        check(b"\x7F\x7Fa\n", Some("a"));
        check(b"sec\x03", None);
        check(b"sec", None);
        check(b"\n", None);
        check(b"\xFF\n", None);
    }

    #[test]
    fn standard_input_gives_its_first_line() {
        assert_eq!(password_from(&b"a b \r\nrest"[..]).unwrap(), "a b ");
        assert_eq!(password_from(&b"no end"[..]).unwrap(), "no end");
        assert!(matches!(password_from(&b"\n"[..]), Err(PromptError::Cancelled)));
    }
}

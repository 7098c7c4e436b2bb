//! `parlor blob`: firmware images of a running broker, and the key that signs them.

use super::client::{Client, segment};
use super::key::Key;
use super::operate::{OperateError, config_of, finish, print_lines, printable, running};
use super::progress::{Counted, Progress};
use super::{Exit, ListArgs, Place};
use clap::{Args, Subcommand};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// What can be done with blobs.
#[derive(Debug, Subcommand)]
pub(super) enum BlobCommand {
    /// Put in a file, and print its id. The same file again is the same blob.
    #[command(after_help = "\
Examples:
  parlor blob put thermo.bin --version 1.2.0 --for thermo1
  parlor blob put thermo.bin --version 1.2.0 --for thermo1,thermo2,g-home --key ota.pem
  parlor blob put thermo.bin --version 1.2.0 --for thermo3       it is there: thermo3 may fetch it too

The id is the SHA-256 of the file, as sha256sum prints it. `parlor update` does this and tells the device.")]
    Put(PutArgs),
    /// List blobs, and who may fetch them.
    List(ListArgs),
    /// Remove a blob. A device that is fetching it hears that it is gone.
    #[command(visible_alias = "rm")]
    #[command(after_help = "Example:\n  parlor blob remove 63f3d4a8      as much of the id as no other begins with")]
    Remove(RemoveArgs),
    /// Make a key that signs firmware: the private half into a file, the public half to standard output.
    #[command(after_help = "\
Example:
  parlor blob key ota.pem > ota.pub

FILE is for its owner only: who has it can sign for every device that trusts it. The public half belongs into the firmware;
it is printed in hex and as a Rust array. A file from `openssl genpkey -algorithm ed25519` works as well.")]
    Key(KeyArgs),
}

/// A file that becomes a blob.
#[derive(Debug, Args, Clone)]
pub(super) struct Image {
    /// Its version, as text.
    #[arg(long = "version", value_name = "VERSION")]
    pub version: String,
    /// File with the private key (PEM) to sign it with.
    #[arg(short, long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Its name for people. Default: that of the file.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The file.
    file: PathBuf,
    /// Account, or group, whose devices may fetch it; repeat for more, or write commas between them.
    #[arg(long = "for", value_name = "NAMES", value_delimiter = ',')]
    readers: Vec<String>,
    #[command(flatten)]
    image: Image,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Its id, or the beginning of it.
    id: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File for the private half, which must not exist yet.
    file: PathBuf,
}

/// `parlor blob …`
pub(super) fn blob(command: BlobCommand, environment: Vec<(String, String)>) -> Exit {
    let place = match &command {
        BlobCommand::Put(args) => &args.place,
        BlobCommand::List(args) => &args.place,
        BlobCommand::Remove(args) => &args.place,
        BlobCommand::Key(args) => return finish(key(&args.file)),
    };
    let config = match config_of(place.clone(), environment) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let data = &config.data;
    finish(match command {
        BlobCommand::Put(args) => put(data, &args.file, &args.image, &args.readers)
            .and_then(|blob| print_lines(&format!("{}\n", blob["id"].as_str().unwrap_or_default()))),
        BlobCommand::List(args) => list(data, args.json),
        BlobCommand::Remove(args) => remove(data, &args.id),
        BlobCommand::Key(_) => Ok(()),
    })
}

fn key(path: &Path) -> Result<(), OperateError> {
    let (hex, rust) = Key::make(path)?.public();
    eprintln!("private key in {}: keep it secret, and keep a copy", path.display());
    print_lines(&format!("public key  {hex}\n\nconst UPDATE_KEY: {rust}\n"))
}

/// What is known of a file before it is sent.
struct Digested {
    file: File,
    digest: ring::digest::Digest,
    id: String,
}

fn digested(path: &Path) -> Result<Digested, OperateError> {
    let failed = |error| OperateError::File { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = file.read(&mut piece).map_err(failed)?;
        if length == 0 {
            break;
        }
        context.update(piece.get(..length).unwrap_or_default());
    }
    file.rewind().map_err(failed)?;
    let digest = context.finish();
    let id = digest.as_ref().iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    });
    Ok(Digested { file, digest, id })
}

/// Puts in a file, unless it is there, and lets `readers` fetch it. What the broker says of it, with the signature made
/// here, if one was.
pub(super) fn put(data: &Path, path: &Path, image: &Image, readers: &[String]) -> Result<Value, OperateError> {
    let Digested { file, digest, id } = digested(path)?;
    let key = image.key.as_deref().map(Key::read).transpose()?;
    let signature = key.map(|key| key.sign(digest.as_ref()));
    let client = running(data)?;
    let there = blobs(&client)?.into_iter().find(|blob| blob["id"] == id.as_str());
    let mut blob = if let Some(there) = there {
        eprintln!(
            "it was there, as {} {}, and stays as it is",
            printable(&there["name"]),
            printable(&there["version"])
        );
        let path = format!("/blobs/{id}/readers");
        client.call("POST", &path, Some(&json!({ "add": readers })))?.done()?
    } else {
        let name = image.name.clone().or_else(|| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let mut path = format!("/blobs?version={}", segment(&image.version));
        for (key, value) in [("name", name), ("for", Some(readers.join(","))), ("signature", signature.clone())] {
            if let Some(value) = value {
                let _ = write!(path, "&{key}={}", segment(&value));
            }
        }
        let mut from = Counted::new(BufReader::new(file), Progress::new("put in"));
        let blob = client.upload(&path, &mut from, |_| ())?.done()?;
        from.progress.end(from.bytes);
        blob
    };
    if let Some(signature) = signature {
        blob["signature"] = signature.into();
    }
    Ok(blob)
}

fn blobs(client: &Client) -> Result<Vec<Value>, OperateError> {
    let mut body = client.call("GET", "/blobs", None)?.done()?;
    Ok(body["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn list(data: &Path, as_json: bool) -> Result<(), OperateError> {
    let items = blobs(&running(data)?)?;
    if as_json {
        return print_lines(&format!("{}\n", json!(items)));
    }
    let mut text = "id            version       bytes  signature  name                  for\n".to_owned();
    for blob in items {
        let readers: Vec<String> = blob["for"].as_array().into_iter().flatten().map(printable).collect();
        let line = format!(
            "{:12.12}  {:10} {:>8}  {:9}  {:20}  {}",
            printable(&blob["id"]),
            printable(&blob["version"]),
            blob["size"].to_string(),
            if blob["signature"].is_string() { "signed" } else { "-" },
            printable(&blob["name"]),
            readers.join(", ")
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    print_lines(&text)
}

fn remove(data: &Path, id: &str) -> Result<(), OperateError> {
    let client = running(data)?;
    let items = blobs(&client)?;
    let mut found = items.iter().filter_map(|blob| blob["id"].as_str()).filter(|found| found.starts_with(id));
    let whole = match (found.next(), found.next()) {
        (Some(whole), None) if !id.is_empty() => whole.to_owned(),
        (Some(_), _) => return Err(OperateError::SeveralBlobs(id.to_owned())),
        (None, _) => return Err(OperateError::NoBlob(id.to_owned())),
    };
    client.call("DELETE", &format!("/blobs/{}", segment(&whole)), None)?.done()?;
    eprintln!("blob {whole} removed");
    Ok(())
}

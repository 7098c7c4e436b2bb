//! `parlor-client` behind blocking calls: an app that says and hears.

use parlor_client::{Backoff, Client, Event, Handle, Options, OutboxKind, Secret};
use parlor_tests::im::PASSWORD;
use parlor_tests::site::Site;
use std::collections::VecDeque;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout, timeout_at};

/// The longest a test waits for something it expects.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// One terminal of an account.
pub struct App {
    name: String,
    client: Client,
    held: VecDeque<Event>,
}

/// What an app of these tests is told besides its URL.
pub fn options(site: &Site, account: &str, terminal: &str) -> Options {
    Options {
        user: Some(account.to_owned()),
        password: Some(Secret(PASSWORD.to_owned())),
        terminal: Some(terminal.to_owned()),
        ca: Some(PathBuf::from(site.dir.name("ca.pem"))),
        // A line that was cut is to be noticed soon, and tried again soon.
        keep_alive: Duration::from_secs(1),
        backoff: Backoff {
            first: Duration::from_millis(20),
            base: Duration::from_millis(50),
            most: Duration::from_millis(500),
        },
        attempt: Duration::from_secs(3),
        farewell: Duration::from_secs(20),
        ..Options::default()
    }
}

impl App {
    /// Connects, and its subscriptions stand.
    #[track_caller]
    pub fn open(site: &Site, url: &str, account: &str, terminal: &str) -> Self {
        Self::with(url, options(site, account, terminal))
    }

    /// The same with other options.
    #[track_caller]
    pub fn with(url: &str, options: Options) -> Self {
        let mut app = Self::start(url, options);
        app.until("a connection", |event| matches!(event, Event::Connected).then_some(()));
        app
    }

    /// Begins to connect.
    #[track_caller]
    pub fn start(url: &str, options: Options) -> Self {
        let name = format!("{} over {url}", options.terminal.clone().unwrap_or_default());
        let client = runtime().block_on(Client::start(url, options));
        let client = client.unwrap_or_else(|why| panic!("{name}: {why}"));
        Self { name, client, held: VecDeque::new() }
    }

    /// Sends a message: its id.
    #[track_caller]
    pub fn send(&mut self, to: &str, text: &str) -> String {
        match self.wait(self.client.send(to, text)) {
            Ok(id) => id,
            Err(why) => self.until(&format!("an id, and not {why:?},"), |_| None),
        }
    }

    /// Sends a message, and the broker has it: its seq.
    #[track_caller]
    pub fn say(&mut self, to: &str, text: &str) -> u64 {
        let id = self.send(to, text);
        self.until(&format!("the end of {text:?}"), |event| match event {
            Event::Received { id: found, seq, .. } if *found == id => *seq,
            Event::Lost { id: found, why, .. } if *found == id => panic!("{text:?} is lost: {why:?}"),
            _ => None,
        })
    }

    /// Waits for something the client promises.
    #[track_caller]
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let done = runtime().block_on(async { timeout(PATIENCE, future).await });
        done.unwrap_or_else(|_| panic!("{}: no answer", self.name))
    }

    /// The next event that `pick` picks; others stay, in order, for later.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        for at in 0..self.held.len() {
            if let Some(found) = pick(&self.held[at]) {
                self.held.remove(at);
                return found;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(Some(event)) = runtime().block_on(async { timeout_at(deadline, self.client.next()).await }) else {
                panic!("{}: {what} expected, after {:#?}", self.name, self.held)
            };
            if let Some(found) = pick(&event) {
                return found;
            }
            self.held.push_back(event);
        }
    }

    /// The next message in this conversation.
    #[track_caller]
    pub fn message(&mut self, with: &str) -> (u64, String) {
        self.until(&format!("a message of {with}"), |event| match event {
            Event::Message { with: found, message } if found == with => {
                Some((message.seq, message.text.clone().unwrap_or_default()))
            }
            _ => None,
        })
    }

    /// What the app was told so far and nobody has asked for.
    pub fn held(&self) -> impl Iterator<Item = &Event> {
        self.held.iter()
    }

    /// The broker has handled everything this app has said, and this app has heard what it was sent before: an answer
    /// comes behind it.
    #[track_caller]
    pub fn fence(&mut self) {
        let answer = self.wait(self.client.ask("me/whois/nobody-has-this-name", serde_json::json!({})));
        // It says that nobody has that name, which is an answer.
        drop(answer);
        while let Ok(Some(event)) =
            runtime().block_on(async { timeout(Duration::from_millis(50), self.client.next()).await })
        {
            self.held.push_back(event);
        }
    }

    /// Leaves; everything has its end.
    #[track_caller]
    pub fn close(self) {
        let left = runtime().block_on(async { timeout(PATIENCE, self.client.close()).await });
        assert_eq!(left.ok(), Some(0), "{}: things without an end", self.name);
    }
}

impl Deref for App {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.client
    }
}

/// An outbox in a file of this site.
pub fn outbox(site: &Site, name: &str) -> OutboxKind {
    OutboxKind::File(PathBuf::from(site.dir.name(name)))
}

//! Which requests there are, and how a request line is taken apart.

/// Everything that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Healthz,
    Readyz,
    Metrics,
    OpenApi,
    Status,
    Sessions,
    Session,
    Kick,
    Subscriptions,
    Retained,
    RetainedClear,
    Accounts,
    AccountAdd,
    Account,
    AccountPut,
    AccountRemove,
    TokenIssue,
    TokensRevoke,
    Pair,
    Messages,
    Commands,
    Command,
    Channels,
    Channel,
    ChannelAct,
    Conversations,
    History,
    Recount,
    Blobs,
    BlobPut,
    BlobGrant,
    BlobRemove,
    Reload,
    Backup,
    Restore,
}

/// Method, path with `{parameters}`, and what it is. docs/openapi.json describes each of them.
pub(super) const ROUTES: &[(&str, &str, Route)] = &[
    ("GET", "/healthz", Route::Healthz),
    ("GET", "/readyz", Route::Readyz),
    ("GET", "/metrics", Route::Metrics),
    ("GET", "/api/v1/openapi.json", Route::OpenApi),
    ("GET", "/api/v1/status", Route::Status),
    ("GET", "/api/v1/sessions", Route::Sessions),
    ("GET", "/api/v1/sessions/{client_id}", Route::Session),
    ("DELETE", "/api/v1/sessions/{client_id}", Route::Kick),
    ("GET", "/api/v1/subscriptions", Route::Subscriptions),
    ("GET", "/api/v1/retained", Route::Retained),
    ("DELETE", "/api/v1/retained/{topic}", Route::RetainedClear),
    ("GET", "/api/v1/accounts", Route::Accounts),
    ("POST", "/api/v1/accounts", Route::AccountAdd),
    ("GET", "/api/v1/accounts/{name}", Route::Account),
    ("PUT", "/api/v1/accounts/{name}", Route::AccountPut),
    ("DELETE", "/api/v1/accounts/{name}", Route::AccountRemove),
    ("POST", "/api/v1/accounts/{name}/token", Route::TokenIssue),
    ("DELETE", "/api/v1/accounts/{name}/tokens", Route::TokensRevoke),
    ("POST", "/api/v1/pair", Route::Pair),
    ("POST", "/api/v1/messages", Route::Messages),
    ("POST", "/api/v1/commands", Route::Commands),
    ("GET", "/api/v1/commands/{device}/{id}", Route::Command),
    ("GET", "/api/v1/channels", Route::Channels),
    ("GET", "/api/v1/channels/{channel}", Route::Channel),
    ("POST", "/api/v1/channels/{channel}/{op}", Route::ChannelAct),
    ("GET", "/api/v1/conversations", Route::Conversations),
    ("GET", "/api/v1/history", Route::History),
    ("POST", "/api/v1/recount", Route::Recount),
    ("GET", "/api/v1/blobs", Route::Blobs),
    ("POST", "/api/v1/blobs", Route::BlobPut),
    ("POST", "/api/v1/blobs/{id}/readers", Route::BlobGrant),
    ("DELETE", "/api/v1/blobs/{id}", Route::BlobRemove),
    ("POST", "/api/v1/reload", Route::Reload),
    ("GET", "/api/v1/backup", Route::Backup),
    ("POST", "/api/v1/restore", Route::Restore),
];

/// Whom a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody: monitors have no token, what they are shown is no secret, and a device that pairs has a code instead.
    Open,
    /// The operator, and a service with a connect token, which acts as itself only.
    Service,
    /// The operator.
    Operator,
}

impl Route {
    /// Whom it answers.
    pub(super) fn access(self) -> Access {
        match self {
            Self::Healthz | Self::Readyz | Self::Metrics | Self::OpenApi | Self::Pair => Access::Open,
            Self::Messages
            | Self::Commands
            | Self::Command
            | Self::Channels
            | Self::Channel
            | Self::ChannelAct
            | Self::Conversations
            | Self::History => Access::Service,
            _ => Access::Operator,
        }
    }

    /// Keys its query string may have.
    pub(super) fn query_keys(self) -> &'static [&'static str] {
        match self {
            Self::Sessions => &["after", "limit", "account"],
            Self::Kick => &["forget"],
            Self::Subscriptions => &["after", "limit", "client_id", "filter"],
            Self::Retained => &["after", "limit", "filter", "prefix"],
            Self::ChannelAct => &["as"],
            Self::Channel => &["as", "entry", "before", "max"],
            Self::Command => &["from"],
            Self::Conversations => &["account", "max"],
            Self::History => &["account", "with", "before", "after", "since", "until", "max"],
            Self::BlobPut => &["name", "version", "for", "signature"],
            _ => &[],
        }
    }
}

/// What a method and a path lead to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A route, and the parameters in its path, in their order and as they were written.
    Route(Route, Vec<String>),
    /// The path exists; these are its methods.
    OtherMethods(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

/// Looks a request up. HEAD is answered as GET is.
pub(super) fn find(method: &str, path: &str) -> Found {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut others = Vec::new();
    for (allowed, pattern, route) in ROUTES {
        let Some(parameters) = fits(pattern, path) else { continue };
        if *allowed == method {
            return Found::Route(*route, parameters.into_iter().map(str::to_owned).collect());
        }
        others.push(*allowed);
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

/// Compares a path with a pattern, segment by segment; `{name}` stands for one that is not empty. Gives what stands in
/// the places of parameters.
fn fits<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut parameters = Vec::new();
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(parameters),
            (Some(name), Some(segment)) if name.starts_with('{') && !segment.is_empty() => parameters.push(segment),
            (Some(fixed), Some(segment)) if fixed == segment => {}
            _ => return None,
        }
    }
}

/// Replaces `%XX` (RFC 3986 s2.1); `None` when it is not that, or what results is not UTF-8.
///
/// `+` stays `+`: in a topic filter it means something.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? << 4 | digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// A query string could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueryError {
    /// A key this route does not have.
    UnknownKey(String),
    /// A key twice.
    Twice(String),
    /// `%` without two digits, or bytes that are not UTF-8.
    Encoding,
}

/// Takes a query string apart.
pub(super) fn query(text: &str, known: &[&str]) -> Result<Vec<(String, String)>, QueryError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key).ok_or(QueryError::Encoding)?, decode(value).ok_or(QueryError::Encoding)?);
        if !known.contains(&key.as_str()) {
            return Err(QueryError::UnknownKey(key));
        }
        if pairs.iter().any(|(seen, _)| *seen == key) {
            return Err(QueryError::Twice(key));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// Whether a page of another site could not have sent this `Host`: an address, a loopback name, or a configured name.
///
/// A name that a stranger makes resolve to this machine (DNS rebinding) is none of these.
pub(super) fn is_own_host(host: &str, configured: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((name, port)) = rest.split_once(']') else { return false };
        return (port.is_empty() || port.starts_with(':')) && name.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.parse::<std::net::Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || configured.iter().any(|configured| configured.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_route() {
        let check = |method, path, expect| assert_eq!(find(method, path), expect, "{method} {path}");
        check("GET", "/healthz", Found::Route(Route::Healthz, vec![]));
        check("HEAD", "/healthz", Found::Route(Route::Healthz, vec![]));
        check("GET", "/api/v1/sessions/a%2Fb", Found::Route(Route::Session, vec!["a%2Fb".into()]));
        check("DELETE", "/api/v1/sessions/x", Found::Route(Route::Kick, vec!["x".into()]));
        check("POST", "/api/v1/sessions/x", Found::OtherMethods(vec!["GET", "DELETE"]));
        check("GET", "/api/v1/sessions/", Found::Nothing);
        check("GET", "/api/v1/sessions/a/b", Found::Nothing);
        check("GET", "/api/v1/sessions//", Found::Nothing);
        check("GET", "/", Found::Nothing);
        check("DELETE", "/metrics", Found::OtherMethods(vec!["GET"]));
    }

    #[test]
    fn a_pattern_may_have_several_parameters() {
        let check = |pattern, path, expect: Option<&[&str]>| {
            assert_eq!(fits(pattern, path).as_deref(), expect, "{pattern} {path}");
        };
        check("/a/{x}/b/{y}", "/a/1/b/2", Some(&["1", "2"]));
        check("/a/{x}/{y}", "/a/1/b", Some(&["1", "b"]));
        check("/a/{x}/b", "/a/{x}/b", Some(&["{x}"]));
        check("/a/{x}/b", "/a//b", None);
        check("/a/{x}/b", "/a/1/c", None);
        check("/a/{x}/b", "/a/1", None);
        check("/a/{x}", "/a/1/b", None);
        check("/a", "/a/", None);
    }

    #[test]
    fn escapes_are_read_and_plus_is_plus() {
        let check = |text, expect: Option<&str>| assert_eq!(decode(text).as_deref(), expect, "{text}");
        check("home%2Fl%c3%a4mp/+/%23", Some("home/lämp/+/#"));
        check("%", None);
        check("%2", None);
        check("%+2", None);
        check("%zz", None);
        check("%ff", None);
    }

    #[test]
    fn queries_are_read() {
        let known = ["after", "limit"];
        let check = |text, expect| assert_eq!(query(text, &known), expect, "{text}");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        check("", Ok(vec![]));
        check("after=a%3D&limit=5", Ok(vec![pair("after", "a="), pair("limit", "5")]));
        check("after", Ok(vec![pair("after", "")]));
        check("x=1", Err(QueryError::UnknownKey("x".into())));
        check("limit=1&limit=2", Err(QueryError::Twice("limit".into())));
        check("limit=%", Err(QueryError::Encoding));
    }

    #[test]
    fn hosts_a_browser_can_be_tricked_into_are_not_ours() {
        let configured = ["broker.lan".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:9883",
            "localhost:1",
            "LOCALHOST",
            "[::1]:9883",
            "[::1]",
            "Broker.lan:80",
            "10.0.0.7",
        ] {
            assert!(is_own_host(host, &configured), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9883", "[::1", "[::1]x", "[evil]"]
        {
            assert!(!is_own_host(host, &configured), "{host}");
        }
    }
}

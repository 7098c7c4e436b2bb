//! Why a request was refused, and what its sender reads about it (RFC 9457).

use super::accounts::AccountError;
use super::command::{CommandError, PairError};
use super::router::QueryError;
use crate::auth::IssueError;
use hyper::StatusCode;
use serde_json::{Value, json};

/// A request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("there is nothing here")]
    NoRoute,
    #[error("this can be asked with {} only", .0.join(", "))]
    Method(Vec<&'static str>),
    #[error("the operator's token is missing or wrong")]
    Unauthorized,
    #[error("the Host header names neither this machine nor a configured name")]
    Host,
    #[error("{0}")]
    Query(&'static str, String),
    #[error("the path is not well-formed")]
    Path,
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body broke off")]
    Broken,
    #[error("the body is not what is expected here: {0}")]
    Json(serde_json::Error),
    #[error("there is no {0} \"{1}\"")]
    NoSuch(&'static str, String),
    #[error("there is an account \"{0}\" already")]
    Exists(String),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{text}")]
    Refused { code: &'static str, text: String },
    #[error("messaging is switched off")]
    NoMessaging,
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error("the configuration has errors, and the running one stays in use:\n{0}")]
    Config(String),
    #[error("the broker did not answer within {0} s")]
    Silent(u64),
    #[error("the broker is ending")]
    Gone,
    #[error("cannot write to the data directory: {0}")]
    Disk(std::io::Error),
}

/// Status for a refusal of messaging, by its code (docs/protocol.md section 10).
fn status_of_code(code: &str) -> StatusCode {
    match code {
        "bad_request" | "bad_topic" | "response_topic" => StatusCode::BAD_REQUEST,
        "no_account" | "forbidden" | "no_consent" | "blocked" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "exists" | "id_reused" | "too_late" => StatusCode::CONFLICT,
        "expired" => StatusCode::GONE,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "quota" => StatusCode::TOO_MANY_REQUESTS,
        "low_space" => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl ApiError {
    /// What is wrong with a request, in the words of messaging.
    pub(super) fn refused(code: &'static str, text: impl Into<String>) -> Self {
        Self::Refused { code, text: text.into() }
    }

    pub(super) fn query(error: QueryError) -> Self {
        match error {
            QueryError::UnknownKey(key) => {
                Self::Query("docs/openapi.json lists the keys of each query", format!("the query has no key \"{key}\""))
            }
            QueryError::Twice(key) => Self::Query("give each key once", format!("the query has \"{key}\" twice")),
            QueryError::Encoding => Self::Query(
                "write bytes outside a-z, A-Z, 0-9, '-', '.', '_', '~' as %XX",
                "the query is not well-formed".into(),
            ),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute | Self::NoSuch(..) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Query(..) | Self::Path | Self::Json(_) | Self::Broken => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Exists(_) => StatusCode::CONFLICT,
            Self::Account(AccountError::Record(_)) | Self::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Account(AccountError::Password(crate::auth::PasswordError::Random)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Account(_) | Self::Config(_) | Self::Command(CommandError::Unusable(_)) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Refused { code, .. } => status_of_code(code),
            Self::NoMessaging => StatusCode::NOT_IMPLEMENTED,
            Self::Issue(IssueError::NoAccount(_)) => StatusCode::NOT_FOUND,
            Self::Issue(IssueError::Disabled) => StatusCode::CONFLICT,
            Self::Issue(IssueError::Ttl | IssueError::Groups) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Issue(IssueError::Key { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Pair(PairError::SlowedDown(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Pair(PairError::Command(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Command(CommandError::Busy(_)) => StatusCode::CONFLICT,
            Self::Command(_) | Self::Silent(_) | Self::Gone => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::NoRoute | Self::NoSuch(..) => "Not found",
            Self::Method(_) => "Method not allowed",
            Self::Unauthorized => "Unauthorized",
            Self::Host => "Unknown host",
            Self::Query(..) | Self::Path | Self::Json(_) | Self::Broken => "Malformed request",
            Self::TooLarge(_) => "Too large",
            Self::Slow => "Too slow",
            Self::Exists(_) => "Exists already",
            Self::Account(_) => "Unusable account",
            Self::Refused { .. } => "Refused by messaging",
            Self::NoMessaging => "No messaging",
            Self::Issue(IssueError::NoAccount(_)) => "Not found",
            Self::Issue(IssueError::Key { .. }) => "The disk refused",
            Self::Issue(_) => "No token",
            Self::Pair(PairError::SlowedDown(_)) => "Slowed down",
            Self::Pair(PairError::Command(_)) => "No answer",
            Self::Config(_) => "Unusable configuration",
            Self::Command(CommandError::Unusable(_)) => "Unusable",
            Self::Command(CommandError::Busy(_)) => "Under way",
            Self::Command(CommandError::Store(_)) | Self::Disk(_) => "The disk refused",
            Self::Command(CommandError::Draining) | Self::Gone => "Shutting down",
            Self::Silent(_) => "No answer",
        }
    }

    /// What to do; empty where the text says it.
    fn advice(&self) -> &'static str {
        match self {
            Self::NoRoute | Self::Method(_) => "docs/openapi.json and /api/v1/openapi.json list every path and method",
            Self::Unauthorized => {
                "send `Authorization: Bearer TOKEN` with the content of the file admin.token in the data directory"
            }
            Self::Host => "use 127.0.0.1, or add the name to `hosts` in [http]",
            Self::Query(advice, _) => advice,
            Self::Path => "write bytes outside a-z, A-Z, 0-9, '-', '.', '_', '~' as %XX, a slash inside a topic too",
            Self::TooLarge(_) | Self::Json(_) => "docs/openapi.json shows what is expected",
            Self::Slow | Self::Broken => "send it again",
            Self::NoSuch("account", _) => "GET /api/v1/accounts lists them",
            Self::NoSuch("session", _) => "GET /api/v1/sessions lists them",
            Self::NoSuch(..) => "GET /api/v1/retained lists them",
            Self::Exists(_) => "change it with PUT /api/v1/accounts/NAME",
            Self::Config(_) => "correct it, try it with `parlor check-config`, and reload again",
            Self::Silent(_) => "try again; if this lasts, look at the log and at the load of the machine",
            Self::Gone => "start it again",
            Self::Disk(_) => "make room or correct the permissions",
            Self::NoMessaging => "write enabled = true in [im] and start the broker again",
            Self::Issue(IssueError::NoAccount(_)) => "GET /api/v1/accounts lists them",
            Self::Refused { code, .. } if *code == "quota" => "send less, or later",
            Self::Account(_) | Self::Command(_) | Self::Refused { .. } | Self::Issue(_) | Self::Pair(_) => "",
        }
    }

    /// The code of messaging for it, where it has one.
    fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Pair(PairError::SlowedDown(_)) => Some("quota"),
            _ => None,
        }
    }

    /// Seconds after which it is worth trying again, where that is known.
    pub(super) fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::Pair(PairError::SlowedDown(wait_ms)) => Some(wait_ms.div_ceil(1_000)),
            _ => None,
        }
    }

    /// The body.
    pub(super) fn json(&self) -> String {
        self.problem().to_string()
    }

    /// The body, as a value.
    pub(super) fn problem(&self) -> Value {
        let mut body = json!({
            "type": "about:blank",
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.to_string(),
        });
        if !self.advice().is_empty() {
            body["advice"] = self.advice().into();
        }
        if let Some(code) = self.code() {
            body["code"] = code.into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_messaging_have_the_status_of_their_code() {
        for (code, status) in [
            ("bad_request", 400),
            ("bad_topic", 400),
            ("response_topic", 400),
            ("no_account", 403),
            ("forbidden", 403),
            ("no_consent", 403),
            ("blocked", 403),
            ("not_found", 404),
            ("exists", 409),
            ("id_reused", 409),
            ("too_late", 409),
            ("expired", 410),
            ("too_large", 413),
            ("quota", 429),
            ("low_space", 507),
            ("something else", 422),
        ] {
            let error = ApiError::refused(code, "why");
            assert_eq!(error.status().as_u16(), status, "{code}");
            let problem = error.problem();
            assert_eq!((&problem["code"], &problem["detail"]), (&code.into(), &"why".into()));
        }
        assert!(ApiError::NoRoute.problem().get("code").is_none());
    }
}

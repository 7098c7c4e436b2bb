//! Why a request was refused, and what its sender reads about it (RFC 9457).

use super::accounts::AccountError;
use super::command::CommandError;
use super::router::QueryError;
use hyper::StatusCode;
use serde_json::json;

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
    #[error("the configuration has errors, and the running one stays in use:\n{0}")]
    Config(String),
    #[error("the broker did not answer within {0} s")]
    Silent(u64),
    #[error("the broker is ending")]
    Gone,
    #[error("cannot write to the data directory: {0}")]
    Disk(std::io::Error),
}

impl ApiError {
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
            Self::Account(_) | Self::Command(_) => "",
        }
    }

    /// The body.
    pub(super) fn json(&self) -> String {
        let mut body = json!({
            "type": "about:blank",
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.to_string(),
        });
        if !self.advice().is_empty() {
            body["advice"] = self.advice().into();
        }
        body.to_string()
    }
}

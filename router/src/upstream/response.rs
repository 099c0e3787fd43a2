//! Checks a response's header: whether an answer follows, or which error the response stands for.

use std::time::{Duration, SystemTime};

use http::{
    Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Incoming;

use super::{UpstreamError, answer, dialect::Rejection};

/// Limits for reading the body of an error response, which is read only to find out what the error is about: in bytes
/// and in time.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the response if it is an answer of the content type `kind`.
pub(super) async fn check(response: Response<Incoming>, kind: &str) -> Result<Response<Incoming>, UpstreamError> {
    let status = response.status();
    let code = status.as_u16();
    match status {
        StatusCode::OK if is_of_kind(&response, kind) => Ok(response),
        StatusCode::OK => Err(UpstreamError::UnexpectedContentType),
        // An account without credit rejects every call with its credential, and the fix is the same as for a wrong
        // credential.
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
            Err(UpstreamError::CredentialRejected(code))
        }
        StatusCode::NOT_FOUND => Err(UpstreamError::NotFound),
        StatusCode::TOO_MANY_REQUESTS => Err(UpstreamError::RateLimited(retry_after(&response))),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            let body = answer::beginning(response.into_body(), REFUSAL_BYTES_MAX, REFUSAL_TIMEOUT).await;
            Err(UpstreamError::Rejected {
                status: code,
                rejection: Rejection::read(&body),
            })
        }
        _ if status.is_redirection() => Err(UpstreamError::Redirected(code)),
        _ if status.is_server_error() => Err(match retry_after(&response).filter(|_| is_overload(status)) {
            Some(delay) => UpstreamError::Busy(code, delay),
            None => UpstreamError::Server(Some(code)),
        }),
        _ => Err(UpstreamError::UnexpectedStatus(code)),
    }
}

/// 529 is Anthropic's own status for an overloaded server.
fn is_overload(status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE || status.as_u16() == 529
}

fn is_of_kind(response: &Response<Incoming>, kind: &str) -> bool {
    let text = |name| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let is_plain = text(CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));
    let given = text(CONTENT_TYPE)
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    is_plain && given.trim().eq_ignore_ascii_case(kind)
}

/// Returns the pause that the server asks for. `None`: it asks for none, or not in a form that is understood.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(text.trim(), SystemTime::now())
}

/// Parses the value of `Retry-After`, seconds or a date, and clamps the delay to 0 to 60 s. `None`: the value is
/// neither.
#[must_use]
pub fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    const MAX: Duration = Duration::from_secs(60);
    let digits = text.strip_prefix('-').unwrap_or(text);
    let delay = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if digits.len() < text.len() {
            Duration::ZERO
        } else {
            digits.parse().map_or(MAX, Duration::from_secs)
        }
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(delay.min(MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date_and_limited_to_a_minute() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("5", Some(5)),
            ("61", Some(60)),
            ("99999999999999999999999", Some(60)),
            ("-5", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 09:49:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 07:49:37 GMT", Some(0)),
            ("soon", None),
            ("-", None),
            ("", None),
            ("1.5", None),
        ] {
            assert_eq!(parse_retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}

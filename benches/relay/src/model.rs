//! The model server, fast enough not to be the bottleneck.
//!
//! It implements a minimum of HTTP/1.1, answers with prepared bytes, and writes each event separately, as real servers
//! do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::ask::{self, TOKEN_BYTES, TOKENS, WHOLE_TEXT};

/// Maximum size of a request in bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Placeholder for the time in a prepared token event.
const NO_TIME: &str = "................";
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const OBJECT: &str =
    r#""id":"chatcmpl-8f2c1d7e","object":"chat.completion.chunk","created":1790000000,"model":"bench""#;

/// The prepared answers.
#[derive(Debug)]
struct Answers {
    whole: Vec<u8>,
    begin: Vec<u8>,
    token: Vec<u8>,
    time_at: usize,
    finish: Vec<u8>,
    done: Vec<u8>,
}

/// Serves until the process is ended.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    let answers: &Answers = Box::leak(Box::new(Answers::new()?));
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        // A connection ends when its client closes it.
        connections.spawn(async move { answers.connection(socket).await.ok() });
    }
}

impl Answers {
    fn new() -> Result<Self> {
        let body = format!(
            r#"{{{OBJECT},"choices":[{{"index":0,"message":{{"role":"assistant","content":"{WHOLE_TEXT}"}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":21,"completion_tokens":17,"total_tokens":38}}}}"#
        );
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let chunk = |delta: &str, finish: &str| {
            event(&format!(
                r#"{{{OBJECT},"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}"#
            ))
        };
        let token = chunk(&format!(r#"{{"content":"{NO_TIME}"}}"#), "null");
        let role = chunk(r#"{"role":"assistant","content":""}"#, "null");
        Ok(Self {
            whole: whole.into_bytes(),
            begin: [HEAD.as_bytes(), &role].concat(),
            time_at: ask::position(&token, NO_TIME.as_bytes()).context("the token event has no placeholder")?,
            token,
            finish: chunk("{}", r#""stop""#),
            done: [event("[DONE]"), b"0\r\n\r\n".to_vec()].concat(),
        })
    }

    async fn connection(&self, mut socket: TcpStream) -> Result<()> {
        socket.set_nodelay(true)?;
        let mut received = Vec::with_capacity(4096);
        loop {
            let length = loop {
                if let Some(length) = request_length(&received)? {
                    break length;
                }
                ensure!(received.len() <= REQUEST_BYTES_MAX, "the request is too large");
                if socket.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            };
            match ask::asked(&received[..length])? {
                (true, pace) => self.stream(&mut socket, pace).await?,
                (false, _) => socket.write_all(&self.whole).await?,
            }
            received.drain(..length);
        }
    }

    async fn stream(&self, socket: &mut TcpStream, pace: Duration) -> Result<()> {
        socket.write_all(&self.begin).await?;
        let mut token = self.token.clone();
        let begun = Instant::now();
        for place in 0..TOKENS {
            if place > 0 && !pace.is_zero() {
                sleep_until(begun + pace * u32::try_from(place)?).await;
            }
            let time = format!("{:0TOKEN_BYTES$x}", ask::now());
            token[self.time_at..self.time_at + TOKEN_BYTES].copy_from_slice(time.as_bytes());
            socket.write_all(&token).await?;
        }
        socket.write_all(&self.finish).await?;
        Ok(socket.write_all(&self.done).await?)
    }
}

/// Encodes one event as one chunk of the body.
fn event(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// Returns the length of the first request, or `None` if it is not complete yet.
fn request_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = ask::position(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&bytes[..end])?;
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.context("the request has no length")?.1.trim().parse()?;
    let whole = end + 4 + length;
    Ok((bytes.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::{EVENTS, Question};

    #[test]
    fn a_request_is_complete_only_with_all_its_bytes() {
        let request = Question::paced(Duration::ZERO).streamed;
        for cut in 0..request.len() {
            assert_eq!(request_length(&request[..cut]).unwrap(), None);
        }
        assert_eq!(request_length(&request).unwrap(), Some(request.len()));
    }

    #[test]
    fn an_answer_has_the_documented_size_and_number_of_events() {
        let answers = Answers::new().unwrap();
        let body = answers.whole.len() - ask::position(&answers.whole, b"\r\n\r\n").unwrap() - 4;
        assert!((270..330).contains(&body), "{body} bytes");
        let of = |bytes: &[u8]| String::from_utf8_lossy(bytes).matches("data: ").count();
        let events = of(&answers.begin) + TOKENS * of(&answers.token) + of(&answers.finish) + of(&answers.done);
        assert_eq!(events, EVENTS);
    }
}

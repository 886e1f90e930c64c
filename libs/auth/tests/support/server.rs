//! An HTTP server of keys whose answers a test chooses.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use stategate_auth::{KeySettings, KeySource};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What a path is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// 200 and this.
    Body(String),
    /// 200 and these bytes.
    Bytes(Vec<u8>),
    /// This status, with a body that is a set of keys.
    Status(u16, String),
    /// A redirect.
    Redirect(String),
    /// Nothing, for as long as the client waits.
    Silence,
    /// A body without end.
    Endless,
    /// A body of which a byte comes now and then.
    Drip(String),
    /// The connection is closed.
    Close,
}

#[derive(Debug)]
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: AtomicUsize,
    sent: AtomicUsize,
}

impl KeyServer {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let of_task = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, Arc::clone(&of_task)));
            }
        });
        let server = Self {
            address,
            state,
            task,
        };
        server.answer(answer);
        server
    }

    /// What `/keys` is answered with from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        self.answer_at("/keys", answer);
    }

    pub(crate) fn answer_at(&self, path: &str, answer: Answer) {
        let mut answers = self.state.answers.lock().unwrap();
        answers.insert(path.to_owned(), answer);
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies without end that were taken so far.
    pub(crate) fn sent(&self) -> usize {
        self.state.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn settings(&self) -> KeySettings {
        KeySettings::new(KeySource::parse(&self.url("/keys")).unwrap())
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut connection: TcpStream, state: Arc<State>) {
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            match connection.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        state.requests.fetch_add(1, Ordering::SeqCst);
        let head = String::from_utf8_lossy(&request).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = state.answers.lock().unwrap().get(&path).cloned();
        let answer = answer.unwrap_or(Answer::Status(404, String::new()));
        if respond(&mut connection, &state, answer).await.is_err() {
            return;
        }
    }
}

async fn respond(connection: &mut TcpStream, state: &State, answer: Answer) -> std::io::Result<()> {
    let whole = |status: u16, more: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status} Any\r\ncontent-length: {}\r\n{more}\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    match answer {
        Answer::Body(body) => connection.write_all(&whole(200, "", body.as_bytes())).await,
        Answer::Bytes(body) => connection.write_all(&whole(200, "", &body)).await,
        Answer::Status(status, body) => {
            connection
                .write_all(&whole(status, "", body.as_bytes()))
                .await
        }
        Answer::Redirect(to) => {
            let location = format!("location: {to}\r\n");
            connection.write_all(&whole(302, &location, b"")).await
        }
        Answer::Silence => {
            connection.read_u8().await?;
            Ok(())
        }
        Answer::Endless => {
            connection
                .write_all(b"HTTP/1.1 200 Any\r\n\r\n{\"keys\":[")
                .await?;
            loop {
                connection.write_all(&[b' '; 1024]).await?;
                state.sent.fetch_add(1024, Ordering::SeqCst);
            }
        }
        Answer::Drip(body) => {
            connection.write_all(b"HTTP/1.1 200 Any\r\n\r\n").await?;
            for byte in body.bytes() {
                connection.write_all(&[byte]).await?;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Answer::Close => Err(std::io::ErrorKind::ConnectionAborted.into()),
    }
}

//! A web page about the consortium, for an operator or an auditor: served by their own program, asked with their own certificate, so that
//! it shows what that may see and nothing else, and adds nothing to what coordinators answer. Nothing can be changed on it.
//!
//! Texts of others (names, reasons, versions of programs) are escaped by type. The page fetches nothing from elsewhere, and no other site
//! gets at it: its content policy, the names by which it lets itself be called, and headers see to that.

mod detail;
mod layout;
mod lineage;
mod overview;
mod seen;

use std::{net::SocketAddr, sync::Arc};

use archipelago_client::Client;
use archipelago_common::{Name, SiteId, TaskId};
use axum::{
    Router,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use maud::Markup;
use tokio::net::TcpListener;

use self::{layout::Shell, seen::Watch};
use crate::error::{Error, Result};

/// What every handler knows.
struct Desk {
    watch: Watch,
    address: SocketAddr,
}

/// Serves the page on a socket until the process ends.
///
/// # Errors  [`Error::Serve`]
pub(crate) async fn serve(listener: TcpListener, consortium: String, client: Client) -> Result<()> {
    let failed = |source| Error::Serve { source };
    let address = listener.local_addr().map_err(failed)?;
    let desk = Arc::new(Desk { watch: Watch::new(consortium, client), address });
    axum::serve(listener, router(desk)).await.map_err(failed)
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/tasks", get(tasks))
        .route("/tasks/{id}", get(task))
        .route("/references/{name}", get(reference))
        .route("/sites/{name}", get(site))
        .route("/events", get(events))
        .route("/page.css", get(|| async { asset("text/css", include_str!("page.css")) }))
        .route("/page.js", get(|| async { asset("text/javascript", include_str!("page.js")) }))
        // Browsers ask for it unasked.
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is no such page\n") })
        .layer(middleware::from_fn_with_state(desk.clone(), guard))
        .with_state(desk)
}

async fn home(State(desk): State<Arc<Desk>>) -> Response {
    let shell = desk.watch.shell().await;
    show(&shell, "Overview", shell.seen.as_deref().map(overview::home))
}

async fn tasks(State(desk): State<Arc<Desk>>) -> Response {
    let shell = desk.watch.shell().await;
    show(&shell, "Tasks", shell.seen.as_deref().map(overview::tasks))
}

async fn events(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let shell = desk.watch.shell().await;
    let site = query.as_deref().and_then(|query| query.strip_prefix("site=")).and_then(|site| site.parse().ok());
    let task = query.as_deref().and_then(|query| query.strip_prefix("task=")).and_then(|task| task.parse().ok());
    show(&shell, "Events", shell.seen.as_deref().map(|seen| overview::events(seen, site.as_ref(), task)))
}

async fn task(State(desk): State<Arc<Desk>>, Path(id): Path<TaskId>) -> Response {
    let shell = desk.watch.shell().await;
    let Some(seen) = shell.seen.as_deref() else { return show(&shell, "Task", None) };
    match desk.watch.client().task(id).await {
        Ok(record) => show(&shell, &format!("Task {id}"), Some(detail::task(seen, &record))),
        Err(error) => missing(&shell, &error),
    }
}

async fn reference(State(desk): State<Arc<Desk>>, Path(name): Path<Name>) -> Response {
    let shell = desk.watch.shell().await;
    match desk.watch.reference(&name).await {
        Ok(found) => show(&shell, &format!("Reference {name}"), Some(detail::reference(&found))),
        Err(error) => missing(&shell, &error),
    }
}

async fn site(State(desk): State<Arc<Desk>>, Path(name): Path<SiteId>) -> Response {
    let shell = desk.watch.shell().await;
    let Some(seen) = shell.seen.as_deref() else { return show(&shell, "Site", None) };
    match desk.watch.left(seen, &name).await {
        Ok(left) => match detail::site(seen, &name, &left) {
            Some(page) => show(&shell, &format!("Site {name}"), Some(page)),
            None => {
                (StatusCode::NOT_FOUND, "there is no such site, or this certificate may not see it\n").into_response()
            }
        },
        Err(error) => missing(&shell, &error),
    }
}

fn show(shell: &Shell, title: &str, main: Option<Markup>) -> Response {
    let status = if main.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Html(shell.page(title, main.as_ref()).into_string())).into_response()
}

fn missing(shell: &Shell, error: &archipelago_client::ClientError) -> Response {
    let page = shell.page("Not found", Some(&overview::fault(&error.to_string())));
    (StatusCode::NOT_FOUND, Html(page.into_string())).into_response()
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Lets a request through that calls this machine by a name of its own: a page of somebody else's, whose name was made to point here, does
/// not. Everything that is answered forbids what the page does not need.
async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut response = match is_own(host, desk.address) {
        true => next.run(request).await,
        false => {
            (StatusCode::MISDIRECTED_REQUEST, "call this page by the address that it listens on\n").into_response()
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn is_own(host: &str, address: SocketAddr) -> bool {
    let port = address.port();
    let is = |name: &str| host == format!("{name}:{port}") || (port == 80 && host == name);
    let ip = match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    is(&ip) || (address.ip().is_loopback() && is("localhost"))
}

/// Of every answer.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let (local, other): (SocketAddr, SocketAddr) =
            ("127.0.0.1:8080".parse().unwrap(), "10.0.0.7:8080".parse().unwrap());
        for host in ["127.0.0.1:8080", "localhost:8080"] {
            assert!(is_own(host, local), "{host}");
        }
        for host in ["", "evil.example:8080", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:8080"] {
            assert!(!is_own(host, local), "{host}");
        }
        assert!(is_own("10.0.0.7:8080", other) && !is_own("localhost:8080", other));
        assert!(is_own("[::1]:9", "[::1]:9".parse().unwrap()));
    }
}

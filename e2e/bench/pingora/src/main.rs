//! The published pingora-proxy as a plain reverse proxy: one worker, kept connections, no access log, no metrics.
//! Arguments: the upstream's address, the address for HTTP/1.1, the address for TLS (HTTP/1.1 and HTTP/2), and the
//! PEM files of the certificate and its key.

use async_trait::async_trait;
use pingora_core::{
    Result,
    listeners::tls::TlsSettings,
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Proxy {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.upstream, false, String::new())))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [upstream, plain, tls, certificate, key] = arguments.as_slice() else {
        eprintln!("usage: bench-pingora UPSTREAM PLAIN TLS CERTIFICATE KEY");
        std::process::exit(2);
    };
    let configuration = ServerConf { threads: 1, upstream_keepalive_pool_size: 256, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Proxy { upstream: upstream.clone() });
    service.add_tcp(plain);
    let mut settings = TlsSettings::intermediate(certificate, key).expect("certificate and key");
    settings.enable_h2();
    service.add_tls_with_settings(tls, None, settings);
    server.add_service(service);
    server.run_forever();
}

//! Editing the files while the gateway serves.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::time::Instant;

use crate::harness::{Client, Folder, Gateway, eventually, gateway, route, says, service, spawn};

async fn two_backends() -> Folder {
    let (one, two) = (says("one").await, says("two").await);
    Folder::with([
        ("gateway.yaml", gateway()),
        ("services.yaml", format!("{}---\n{}", service("one", one), service("two", two))),
        ("route.yaml", route("r", "/", "one")),
    ])
}

#[tokio::test]
async fn an_edited_route_takes_effect_and_no_request_fails_meanwhile() {
    assert_eq!(failures_during_edits(&[Folder::replace]).await, 0);
}

#[tokio::test]
async fn an_edit_takes_effect_however_an_editor_writes() {
    // A file that is empty or away for long enough is believed to be so: on a machine that stalls, requests may fail.
    failures_during_edits(&[Folder::write, Folder::write_with_backup]).await;
}

/// Edits a route again and again, by turns in these ways, under load; waits for each edit to take effect and counts the
/// requests that fail.
async fn failures_during_edits(ways: &[fn(&Folder, &str, &str)]) -> usize {
    let folder = two_backends().await;
    let gateway = Gateway::ready(&folder).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (served, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let running = Arc::new(AtomicUsize::new(0));
    for fresh_connections in [false, false, true, true] {
        let (stop, served, failed, port) = (stop.clone(), served.clone(), failed.clone(), gateway.http);
        let running = running.clone();
        running.fetch_add(1, Ordering::SeqCst);
        spawn(async move {
            let mut client = Client::connect(port).await.unwrap();
            while !stop.load(Ordering::SeqCst) {
                if fresh_connections {
                    client = Client::connect(port).await.unwrap();
                }
                match client.get("/").await {
                    Ok(answer) if answer.status == 200 => served.fetch_add(1, Ordering::SeqCst),
                    other => {
                        println!("failed: {other:?}");
                        failed.fetch_add(1, Ordering::SeqCst)
                    }
                };
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
    }
    let mut slowest = std::time::Duration::ZERO;
    for round in 0..30 {
        let target = if round % 2 == 0 { "two" } else { "one" };
        let edited = Instant::now();
        ways[round / 2 % ways.len()](&folder, "route.yaml", &route("r", "/", target));
        eventually(target, || async { (gateway.get("/").await.body == target).then_some(()) }).await;
        slowest = slowest.max(edited.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    eventually("clients end", || async { (running.load(Ordering::SeqCst) == 0).then_some(()) }).await;
    println!("slowest of 30 edits: {} ms, {} requests meanwhile", slowest.as_millis(), served.load(Ordering::SeqCst));
    assert!(served.load(Ordering::SeqCst) > 0);
    failed.load(Ordering::SeqCst)
}

#[tokio::test]
async fn broken_yaml_keeps_the_last_good_configuration_and_the_error_names_file_and_line() {
    let folder = two_backends().await;
    let gateway = Gateway::ready(&folder).await;
    folder.write("route.yaml", &(route("r", "/", "two") + "  oops\n  : [\n"));
    let line = gateway.logged("route.yaml:").await;
    assert!(line.contains("route.yaml:9:3: "), "{line}");
    assert_eq!(gateway.get("/").await.body, "one");
    // Others go on: a new file is served beside the broken one.
    folder.write("more.yaml", &route("more", "/more", "two"));
    eventually("other files", || async { (gateway.get("/more").await.body == "two").then_some(()) }).await;

    folder.write("route.yaml", &route("r", "/", "two"));
    eventually("mended", || async { (gateway.get("/").await.body == "two").then_some(()) }).await;
    gateway.logged("solved:").await;
}

#[tokio::test]
async fn an_unknown_field_is_refused_with_file_line_object_and_path() {
    let folder = two_backends().await;
    let gateway = Gateway::ready(&folder).await;
    folder.write("route.yaml", &route("r", "/", "two").replace("backendRefs", "backends"));
    let line = gateway.logged("unknown field").await;
    assert!(line.contains("route.yaml:8:5: HTTPRoute default/r: spec.rules[0].backends: unknown field"), "{line}");
    assert_eq!(gateway.get("/").await.body, "one");
    let problems = crate::harness::try_get(gateway.admin, "/problems").await.unwrap();
    assert!(problems.body.contains("spec.rules[0].backends"), "{problems:?}");
}

#[tokio::test]
async fn a_file_that_is_removed_takes_its_route_along() {
    let folder = two_backends().await;
    folder.write("more.yaml", &route("more", "/more", "two"));
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/more").await.body, "two");
    folder.remove("more.yaml");
    eventually("gone", || async { (gateway.get("/more").await.body == "one").then_some(()) }).await;
}

#[tokio::test]
async fn the_same_object_in_two_files_is_told_with_both_names_and_the_served_one_stays() {
    let folder = two_backends().await;
    let gateway = Gateway::ready(&folder).await;
    folder.write("again.yaml", &route("r", "/", "two"));
    let line = gateway.logged("declared a second time").await;
    assert!(line.contains("again.yaml:1:1") && line.contains("route.yaml:1"), "{line}");
    assert_eq!(gateway.get("/").await.body, "one");
}

#[tokio::test]
async fn of_two_routes_for_the_same_match_the_first_by_name_serves_until_it_goes() {
    let folder = two_backends().await;
    folder.write("a.yaml", &route("a", "/", "two"));
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/").await.body, "two");
    folder.remove("a.yaml");
    eventually("the other", || async { (gateway.get("/").await.body == "one").then_some(()) }).await;
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_links() {
    use std::os::unix::fs::symlink;
    let (one, two) = (says("one").await, says("two").await);
    let folder = Folder::with([("gateway.yaml", gateway()), ("route.yaml", route("r", "/", "s"))]);
    for (version, address) in [("..v1", one), ("..v2", two)] {
        std::fs::create_dir(folder.file(version)).unwrap();
        folder.write(&format!("{version}/service.yaml"), &service("s", address));
    }
    symlink("..v1", folder.file("..data")).unwrap();
    symlink("..data/service.yaml", folder.file("service.yaml")).unwrap();
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(gateway.get("/").await.body, "one");
    // As the kubelet does it.
    symlink("..v2", folder.file("..data_tmp")).unwrap();
    std::fs::rename(folder.file("..data_tmp"), folder.file("..data")).unwrap();
    eventually("the new version", || async { (gateway.get("/").await.body == "two").then_some(()) }).await;
}

#[tokio::test]
async fn listeners_come_and_go_and_a_port_that_is_taken_is_tried_again() {
    let folder = two_backends().await;
    let gateway = Gateway::ready(&folder).await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", gateway.https)).unwrap();
    let both = "    - {name: http, protocol: HTTP, port: 8080}\n    - {name: more, protocol: HTTP, port: 8443}\n";
    folder.write("gateway.yaml", &crate::harness::gateway_with(both));
    let line = gateway.logged(&gateway.https.to_string()).await;
    assert!(line.contains("Gateway default/edge"), "{line}");
    assert_eq!(gateway.get("/").await.body, "one");
    drop(taken);
    let answer = eventually("opened", || async { crate::harness::try_get(gateway.https, "/").await.ok() }).await;
    assert_eq!(answer.body, "one");
    folder.write("gateway.yaml", &crate::harness::gateway());
    eventually("closed", || async { Client::connect(gateway.https).await.is_err().then_some(()) }).await;
    assert_eq!(gateway.get("/").await.body, "one");
}

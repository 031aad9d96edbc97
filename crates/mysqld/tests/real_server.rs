//! Stories with a real MySQL, which the first of them fetches.

use quorate_mysqld::{FindOptions, default_cache, fetch_debian_tool, find_or_fetch, prepare_seed};

#[tokio::test]
async fn a_mysql_is_found_or_fetched_and_a_seed_planted() {
    let options = FindOptions {
        explicit: None,
        cache: default_cache(),
    };
    let progress = |text: &str| eprintln!("{text}");
    let started = tokio::time::Instant::now();
    let installation = find_or_fetch(&options, &progress).await.unwrap();
    eprintln!(
        "MySQL {} after {:?}",
        installation.version,
        started.elapsed()
    );
    let seed = prepare_seed(&installation, &options.cache).await.unwrap();
    eprintln!("seed after {:?}", started.elapsed());
    let folder = tempfile::tempdir().unwrap();
    let started = tokio::time::Instant::now();
    seed.plant(&folder.path().join("mysql")).unwrap();
    eprintln!("planted in {:?}", started.elapsed());
    assert!(folder.path().join("mysql/ibdata1").is_file());
    assert!(!folder.path().join("mysql/auto.cnf").exists());
    for tool in ["mysql", "mysqlbinlog", "mysqldump"] {
        let output = installation.tool(tool).arg("--version").output().unwrap();
        assert!(output.status.success(), "{tool}");
    }
}

#[tokio::test]
async fn sysbench_is_fetched_and_runs() {
    let progress = |text: &str| eprintln!("{text}");
    let tree = fetch_debian_tool("sysbench", &default_cache(), &progress)
        .await
        .unwrap();
    let output = tree.tool("sysbench").arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

//! Many tasks from one command: items, order, tags, retries

use std::collections::BTreeSet;
use std::fs;

use crate::cluster::Cluster;
use crate::process::Running;

/// Items that shells, printf and careless programs trip over
const ODD: [&str; 14] = [
    "plain",
    "two words",
    "  blanks around  ",
    "single ' quote",
    "double \" quote",
    "back\\slash\\n",
    "$(touch x) `touch x` ;touch x",
    "-n",
    "--help",
    "* ? [a] {b} ~ ! # & | < >",
    "{}",
    "tab\there",
    "\u{fc}nic\u{f6}de \u{1f600}",
    "ends with {#}",
];

/// Shows that every item reaches its task as it is, through arguments and through a shell string, and that no shell runs any.
#[test]
fn odd_items() {
    let cluster = Cluster::start();
    fs::write(cluster.path("lines"), ODD.map(|item| format!("{item}\n")).concat()).expect("it is ours");
    let with_newlines: Vec<String> = ODD.iter().map(|item| item.to_string()).chain(["new\nline".to_owned(), "\n".to_owned()]).collect();
    fs::write(cluster.path("nuls"), with_newlines.iter().map(|item| format!("{item}\0")).collect::<String>()).expect("it is ours");
    let (lines, nuls) = (cluster.text_path("lines"), cluster.text_path("nuls"));
    let whole = |items: &[String]| items.iter().map(|item| format!("<{item}>\0")).collect::<String>();
    let odd: Vec<String> = ODD.iter().map(|item| item.to_string()).collect();

    let print = ["--", "sh", "-c", "printf '<%s>\\0' \"$1\"", "sh", "{}"];
    assert_eq!(cluster.launch(&[&["-k", "--each", &lines][..], &print].concat()).expect_silent(0).text(), whole(&odd));
    assert_eq!(cluster.launch(&[&["-k", "--each0", &nuls][..], &print].concat()).expect_silent(0).text(), whole(&with_newlines));
    assert_eq!(cluster.launch(&["-k", "--each", &lines, "-c", "printf '<%s>\\0' {}"]).expect_silent(0).text(), whole(&odd));
    assert_eq!(cluster.launch(&["-k", "--each0", &nuls, "-c", "printf '<%s>\\0' {}"]).expect_silent(0).text(), whole(&with_newlines));
    // Without a place for it the item is the last argument.
    assert_eq!(cluster.launch(&["-k", "--each0", &nuls, "--", "printf", "<%s>\\0"]).expect_silent(0).text(), whole(&with_newlines));
    assert_eq!(cluster.launch(&["-k", "--each0", &nuls, "-c", "printf '<%s>\\0'"]).expect_silent(0).text(), whole(&with_newlines));
    assert_eq!(cluster.launch(&["-k", "--each0", &nuls, "-c", "printf '<%s>\\0' \"$MESO_ITEM\" # {#}"]).expect_silent(0).text(), whole(&with_newlines));

    let made: Vec<_> = fs::read_dir(cluster.path("")).expect("it is ours").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(made.iter().map(|name| name.to_string_lossy().into_owned()).collect::<BTreeSet<_>>(), BTreeSet::from(["lines".to_owned(), "nuls".to_owned()]));
    let find = std::process::Command::new("find").arg(cluster.work_dir(0)).args(["-name", "x"]).output().expect("find is everywhere");
    assert!(find.stdout.is_empty(), "an item was run");
}

/// Shows the parts of an item that a command can name, and that standard input serves as a file.
#[test]
fn parts_of_items() {
    let cluster = Cluster::start();
    fs::write(cluster.path("lines"), "/data/one.txt\ntwo.tar.gz\n").expect("it is ours");
    let mut command = cluster.command("meso-launch", &["-k", "--each", "-", "--", "echo", "{#}", "{}", "{.}", "{/}", "{//}", "{/.}"]);
    let ran = Running::start(command.stdin(fs::File::open(cluster.path("lines")).expect("it was just written"))).finish();
    assert_eq!(ran.expect_silent(0).lines(), ["1 /data/one.txt /data/one one.txt /data one", "2 two.tar.gz two.tar two.tar.gz . two.tar"]);

    fs::write(cluster.path("none"), "").expect("it is ours");
    assert_eq!(cluster.launch(&["--each", &cluster.text_path("none"), "--", "echo"]).expect_silent(0).text(), "");
    fs::write(cluster.path("open"), "a\nb").expect("it is ours");
    assert_eq!(cluster.launch(&["-k", "--each", &cluster.text_path("open"), "--", "echo"]).expect_silent(0).text(), "a\nb\n");
}

/// Shows that an item which is no text is named and skipped, and that the others run.
#[test]
fn items_that_are_no_text() {
    let cluster = Cluster::start();
    fs::write(cluster.path("lines"), b"good\nbad \xff\xfe\nfine\n").expect("it is ours");
    let ran = cluster.launch(&["-k", "--each", &cluster.text_path("lines"), "--", "echo"]).expect(125);
    assert_eq!(ran.text(), "good\nfine\n");
    assert!(ran.err.contains("item 2") && ran.err.contains("skipped"), "{}", ran.err);
}

/// Shows that -k prints in the order of the input whatever ends first, and that without it each output still comes whole.
#[test]
fn order_of_outputs() {
    let cluster = Cluster::start();
    fs::write(cluster.path("lines"), (0..12).map(|number| format!("{number}\n")).collect::<String>()).expect("it is ours");
    let lines = cluster.text_path("lines");
    let command = "echo begin {}; sleep 0.$((5 - {} % 6)); echo end {}";
    let kept = cluster.launch(&["-k", "-j", "6", "--each", &lines, "-R", "cpus=1,mem=16M", "-c", command]).expect_silent(0);
    assert_eq!(kept.text(), (0..12).map(|number| format!("begin {number}\nend {number}\n")).collect::<String>());
    let as_they_end = cluster.launch(&["-j", "6", "--each", &lines, "-R", "cpus=1,mem=16M", "-c", command]).expect_silent(0).lines();
    assert_eq!(as_they_end.len(), 24);
    for pair in as_they_end.chunks(2) {
        assert_eq!(pair[0].strip_prefix("begin "), pair[1].strip_prefix("end "), "{as_they_end:?}");
    }
}

/// Shows that --tag begins every line of both outputs with the item.
#[test]
fn tagged_lines() {
    let cluster = Cluster::start();
    fs::write(cluster.path("lines"), "a\nb b\n").expect("it is ours");
    let ran = cluster.launch(&["-k", "--tag", "--each", &cluster.text_path("lines"), "-c", ": {#}; printf 'one\\n\\ntwo'; echo three >&2"]).expect(0);
    assert_eq!(ran.text(), "a\tone\na\t\na\ttwo\nb b\tone\nb b\t\nb b\ttwo\n");
    assert_eq!(ran.err, "a\tthree\nb b\tthree\n");
}

/// Shows that -j bounds how many tasks run at once.
#[test]
fn at_most_so_many_at_once() {
    let cluster = Cluster::start();
    let dir = cluster.text_path("running");
    fs::create_dir(&dir).and_then(|()| fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))).expect("it is ours");
    let command = format!("mkdir {dir}/$MESO_INDEX; ls {dir} | wc -l; sleep 0.1; rmdir {dir}/$MESO_INDEX");
    let counts = cluster.launch(&["-n", "20", "-j", "3", "-R", "cpus=0.1,mem=16M", "-c", &command]).expect_silent(0).lines();
    assert_eq!(counts.len(), 20);
    assert!(counts.iter().all(|count| count.trim().parse::<u32>().is_ok_and(|count| count <= 3)), "{counts:?}");
}

/// Shows that a failed task is run again as often as asked for, that the last code counts, and that each attempt knows its number.
#[test]
fn failed_tasks_are_tried_again() {
    let cluster = Cluster::start();
    let witness = cluster.text_path("witness");
    let command = format!("echo $MESO_ATTEMPT >>{witness}; [ $MESO_ATTEMPT -ge 3 ]");
    cluster.launch(&["--retries", "5", "-c", &command]).expect(0);
    assert_eq!(cluster.lines_of("witness"), ["1", "2", "3"]);
    fs::remove_file(&witness).expect("it was written");
    cluster.launch(&["--retries", "1", "-c", &command]).expect(1);
    assert_eq!(cluster.lines_of("witness"), ["1", "2"]);
    fs::remove_file(&witness).expect("it was written");
    cluster.launch(&["-c", &command]).expect(1);
    assert_eq!(cluster.lines_of("witness"), ["1"]);
}

//! Output and input, byte for byte

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::process::{LIMIT, Running, processes_of, until};

/// How much is sent through, bytes
const MUCH_BYTES: u64 = 100_000_000;

/// Writes random bytes to a file and returns their checksum.
fn random_file(cluster: &Cluster, name: &str) -> String {
    let path = cluster.text_path(name);
    let made = Command::new("sh").args(["-c", "head -c \"$0\" /dev/urandom >\"$1\"", &MUCH_BYTES.to_string(), &path]).status();
    assert!(made.expect("a shell can be started").success());
    checksum(File::open(path).expect("it was just written"))
}

fn checksum(file: File) -> String {
    let output = Command::new("sha256sum").stdin(file).output().expect("sha256sum is everywhere");
    String::from_utf8(output.stdout).expect("it is text")
}

/// Runs `meso-launch` with its output going to a file; the sum of what came.
fn sum_of_output(cluster: &Cluster, args: &[&str], stdin: Stdio) -> String {
    let path = cluster.path("came");
    let ran = Running::start(cluster.command("meso-launch", args).stdin(stdin).stdout(File::create(&path).expect("it is ours"))).finish();
    ran.expect_silent(0);
    checksum(File::open(path).expect("it was just written"))
}

/// Shows that 100 MB of random bytes come out as they were written, from standard output and from standard error.
#[test]
fn much_output() {
    let cluster = Cluster::start();
    let sum = random_file(&cluster, "random");
    assert_eq!(sum_of_output(&cluster, &["--", "cat", &cluster.text_path("random")], Stdio::null()), sum);

    let both = cluster.launch(&["-c", "for i in 1 2 3 4 5 6 7 8 9; do head -c 300000 /dev/zero | tr '\\0' o; head -c 200000 /dev/zero | tr '\\0' e >&2; done"]).expect(0);
    assert_eq!((both.out.len(), both.err.len()), (2_700_000, 1_800_000));
    assert!(both.out.iter().all(|byte| *byte == b'o') && both.err.bytes().all(|byte| byte == b'e'), "the two are not mixed");
}

/// Shows that 100 MB of random bytes go in and come out again unchanged.
#[test]
fn much_input() {
    let cluster = Cluster::start();
    let sum = random_file(&cluster, "random");
    let input = File::open(cluster.path("random")).expect("it was just written");
    assert_eq!(sum_of_output(&cluster, &["-i", "--", "cat"], input.into()), sum);
}

/// Shows that input ends where it ends, that a task need not read it, and that a task which reads slowly gets all of it.
#[test]
fn input_in_pieces() {
    let cluster = Cluster::start();
    let feed = |args: &[&str], bytes: &[u8]| {
        let path = cluster.path("input");
        File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("it is ours");
        Running::start(cluster.command("meso-launch", args).stdin(File::open(&path).expect("it was just written"))).finish()
    };
    assert_eq!(feed(&["-i", "--", "wc", "-c"], b"").expect_silent(0).text(), "0\n");
    assert_eq!(feed(&["-i", "--", "cat"], b"\0one\xff").expect_silent(0).out, b"\0one\xff");
    assert_eq!(feed(&["-i", "--", "head", "-c", "3"], &vec![b'x'; 10_000_000]).expect_silent(0).text(), "xxx");
    assert_eq!(feed(&["-i", "--", "true"], &vec![b'x'; 10_000_000]).expect_silent(0).text(), "");
    let slowly = feed(&["-i", "-c", "while head -c 400000 | grep -q .; do sleep 0.05; echo; done | wc -l"], &vec![b'x'; 4_000_000]);
    assert!(slowly.expect_silent(0).text().trim().parse::<u32>().is_ok_and(|count| count >= 10));

    // A pipe that stays open holds nothing up: what was written is there at once.
    let mut child = cluster.command("meso-launch", &["-i", "--", "sh", "-c", "read first; echo $first; cat"]).stdin(Stdio::piped()).spawn().expect("it was built");
    let mut pipe = child.stdin.take().expect("it is piped");
    let mut out = child.stdout.take().expect("it is piped");
    pipe.write_all(b"one\n").expect("it reads");
    let mut four = [0; 4];
    std::io::Read::read_exact(&mut out, &mut four).expect("it answers");
    assert_eq!(&four, b"one\n");
    pipe.write_all(b"two\n").expect("it reads");
    drop(pipe);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).expect("it is text");
    assert_eq!((rest.as_str(), child.wait().expect("it is our child").code()), ("two\n", Some(0)));
}

/// Shows that a thousand tasks which print and exit at once lose no byte.
#[test]
fn a_thousand_short_tasks() {
    let cluster = Cluster::start();
    let ran = cluster.launch(&["-n", "500", "-R", "cpus=0.2,mem=16M", "-c", "echo $MESO_INDEX; echo $MESO_INDEX >&2"]).expect(0);
    let numbers = |text: &str| {
        let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().expect("a number alone")).collect();
        numbers.sort_unstable();
        numbers
    };
    let all: Vec<u32> = (1..=500).collect();
    assert_eq!((numbers(&ran.text()), numbers(&ran.err)), (all.clone(), all));

    let items: String = (1..=500).map(|number| format!("item {number}\n")).collect();
    std::fs::write(cluster.path("items"), &items).expect("it is ours");
    let ran = cluster.launch(&["-k", "--each", &cluster.text_path("items"), "-R", "cpus=0.2,mem=16M", "--", "echo"]);
    assert_eq!(ran.expect_silent(0).text(), items);
    cluster.until_idle();
}

/// Shows that two hundred short tasks, one after the other and alone, lose no byte of either output.
#[test]
fn short_tasks_one_by_one() {
    let cluster = Cluster::start();
    for number in 1..=200 {
        let ran = cluster.launch(&["--", "sh", "-c", "printf '%s' \"$0\"; printf '%s' \"$0\" >&2", &number.to_string()]);
        assert_eq!((ran.code, ran.text(), ran.err), (0, number.to_string(), number.to_string()));
    }
}

/// Shows that a loop which reads lines and launches a task for each loses no line.
#[test]
fn a_loop_that_reads() {
    let cluster = Cluster::start();
    let lines: String = (1..=30).map(|number| format!("line {number}\n")).collect();
    let path = cluster.path("lines");
    std::fs::write(&path, &lines).expect("it is ours");
    let mut shell = cluster.command("meso-launch", &[]);
    let program = shell.get_program().to_owned();
    shell = {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "while read -r x; do \"$0\" -- echo \"$x\" || exit; done"]).arg(program);
        command.env_clear().envs(shell.get_envs().filter_map(|(key, value)| Some((key, value?)))).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let ran = Running::start(shell.stdin(File::open(&path).expect("it was just written"))).finish();
    assert_eq!(ran.expect_silent(0).text(), lines);
}

/// Shows that nobody reads standard input unasked: a file stays at its beginning.
#[test]
fn standard_input_is_left_alone() {
    let cluster = Cluster::start();
    std::fs::write(cluster.path("input"), "not to be read\n").expect("it is ours");
    std::fs::write(cluster.path("items"), "a\nb\n").expect("it is ours");
    let items = cluster.text_path("items");
    for args in [&["--", "cat"][..], &["-n", "3", "--", "cat"], &["-d", "--", "true"], &["--each", &items, "--", "echo"], &["--dry-run", "--", "cat"]] {
        let mut input = File::open(cluster.path("input")).expect("it was just written");
        let ran = Running::start(cluster.command("meso-launch", args).stdin(input.try_clone().expect("it is open"))).finish().expect(0);
        assert!(!ran.text().contains("not to be read"), "{args:?}");
        assert_eq!(input.seek(SeekFrom::Current(0)).expect("it is a file"), 0, "{args:?}");
    }
}

/// Shows that a reader who leaves ends it all: exit 0, nothing said, no task left.
#[test]
fn a_reader_who_leaves() {
    let cluster = Cluster::start();
    for args in [&["--", "yes"][..], &["-n", "20", "-c", "yes | head -c 100000"]] {
        let mut child = cluster.command("meso-launch", args).spawn().expect("it was built");
        let mut out = child.stdout.take().expect("it is piped");
        let mut two = [0; 2];
        std::io::Read::read_exact(&mut out, &mut two).expect("it writes");
        assert_eq!(&two, b"y\n");
        drop(out);
        let mut said = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().expect("it is piped"), &mut said).expect("it is text");
        assert_eq!((child.wait().expect("it is our child").code(), said.as_str()), (Some(0), ""), "{args:?}");
        cluster.until_idle();
        until("no process of a task is left", || processes_of(&cluster.work_dir(0).join("sandboxes")).is_empty());
    }
}

/// Shows that output which cannot be written is said and is no success.
#[test]
fn a_full_disk_at_our_end() {
    let cluster = Cluster::start();
    for args in [&["--", "echo", "lost"][..], &["-n", "2", "--", "echo", "lost"], &["--dry-run", "--", "true"], &["-d", "--", "true"]] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has one");
        let ran = Running::start(cluster.command("meso-launch", args).stdout(full)).finish();
        assert_eq!(ran.code, 125, "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with("meso-launch: ") && ran.err.contains("no space left"), "{args:?}: {}", ran.err);
    }
}

/// Shows that it works in cron's world, silently: closed standard streams, no terminal, no home, hardly any environment.
#[test]
fn in_the_world_of_cron() {
    let cluster = Cluster::start();
    let witness = cluster.text_path("witness");
    let program = cluster.command("meso-launch", &[]).get_program().to_owned();
    let url = cluster.bus.url();
    for closed in ["<&-", "<&- >&- 2>&-", "</dev/null", "<&- 2>&-"] {
        let line = format!("exec \"$0\" --nats \"$1\" -c 'echo out; echo ran >>{witness}' {closed}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &line]).arg(&program).arg(&url).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = Running::start(&mut command).finish();
        let expected = if closed.contains(">&-") && closed.contains(" >&-") { "" } else { "out\n" };
        assert_eq!((ran.code, ran.text().as_str(), ran.err.as_str()), (0, expected, ""), "with {closed}");
    }
    assert_eq!(cluster.lines_of("witness").len(), 4);
    assert!(LIMIT.as_secs() > 0);
}

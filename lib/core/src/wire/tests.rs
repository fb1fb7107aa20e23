use super::*;
use crate::agent::record::{RECORD_VERSION, Record};
use crate::wire::agent::{Command, Hello, Order, Welcome};
use crate::wire::call::{Answer, Call};
use crate::wire::operator::Outcome;

/// Shows which majors work together, and that whoever is refused is told both versions and what has to be newer.
#[test]
fn protocols() {
    assert_eq!((PROTOCOL_MIN, PROTOCOL), (1, 2), "a release works with the one before it");
    assert_eq!((protocol_fault("the agent", 1), protocol_fault("the agent", 2)), (None, None));
    assert_eq!(protocol_fault("the tool", 0).as_deref(), Some("the tool speaks protocol 0, the master 1 to 2: a newer release of the tool is needed"));
    assert_eq!(protocol_fault("the agent", 3).as_deref(), Some("the agent speaks protocol 3, the master 1 to 2: a newer release of the master is needed"));
}

/// Shows that messages and records as the release before wrote them are read, and that what they do not say is not made up.
#[test]
fn of_the_release_before() {
    let welcome: Welcome = serde_json::from_str(r#"{"meso":"welcome/1","epoch":3,"master":"master_1","beat_ms":15000}"#).expect("it is read");
    assert!(matches!(welcome, Welcome::Welcome { epoch: 3, timeout_ms: None, .. }));
    let hello = r#"{"v":1,"agent":"agent_1","incarnation":"11111111111111111111111111111111","secret":"11111111111111111111111111111111","generation":1,"host":"h","total":{"cpus":1},"max_epoch":0,"boot_id":"","isolation":"processes","version":"0","status_seq":0,"tasks":[]}"#;
    assert_eq!(serde_json::from_str::<Hello>(hello).map(|hello| hello.v).ok(), Some(1));
    let subscribe = r#"{"meso":"subscribe/1","v":1,"framework":"fw_1","session":"11111111111111111111111111111111","role":"default","who":""}"#;
    assert!(matches!(serde_json::from_str(subscribe), Ok(Call::Subscribe(call)) if call.on_unreachable.is_none()));
    let records = [
        r#"{"record":"head","v":1,"agent":"agent_1","generation":4,"boot_id":"b"}"#,
        r#"{"record":"epoch","epoch":7}"#,
        r#"{"record":"killing","task":"task_1","grace_ms":3000,"reason":"kill_requested"}"#,
        r#"{"record":"snapshot","max_epoch":7,"status_seq":9,"spawned":{"epoch":7,"ranges":[[1,4]]}}"#,
    ];
    assert_eq!(RECORD_VERSION, 1, "there is one format so far, and it is read below");
    let read: Vec<Record> = records.map(|text| serde_json::from_str(text).expect(text)).into();
    assert!(matches!(read[1], Record::Epoch { epoch: 7, timeout_ms: None }));
    assert!(matches!(read[3], Record::Snapshot { max_epoch: 7, status_seq: 9, timeout_ms: None, .. }));
}

/// Shows that words and keys of a later release are read as what they are: a state nobody here knows, a refusal all the
/// same, an order to be refused; and that keys are passed over.
#[test]
fn of_a_later_release() {
    assert_eq!(serde_json::from_str::<TaskState>("\"hibernating\"").ok(), Some(TaskState::Unknown));
    assert_eq!(serde_json::from_str::<RefusalCode>("\"too_cold\"").ok(), Some(RefusalCode::Other));
    let answer = r#"{"meso":"refused/1","code":"too_cold","message":"wait for spring","until":4}"#;
    assert!(matches!(serde_json::from_str(answer), Ok(Answer::Refused(refusal)) if refusal.message == "wait for spring"));
    assert!(matches!(serde_json::from_str(answer), Ok(Outcome::Refused(refusal)) if refusal.code == RefusalCode::Other));
    let order = r#"{"epoch":1,"incarnation":"11111111111111111111111111111111","order":{"order":"hibernate","until":4},"hurry":true}"#;
    assert!(matches!(serde_json::from_str(order), Ok(Command { order: Order::Unknown, epoch: 1, .. })));
    let kill = r#"{"epoch":1,"incarnation":"11111111111111111111111111111111","order":{"order":"kill","task":"task_1","reason":"cold","gently":true}}"#;
    assert!(matches!(serde_json::from_str(kill), Ok(Command { order: Order::Kill { grace_ms: None, .. }, .. })));
    assert_eq!(serde_json::from_str::<Task>(r#"{"cmd":"true","cpus":1,"mem":32,"warmth":9}"#).ok().and_then(|task| task.cmd).as_deref(), Some("true"));
    // What a person writes is another matter: a word that means nothing is said to be wrong.
    assert!(serde_json::from_str::<Task>(r#"{"cmd":"true","on_unreachable":"perhaps"}"#).is_err());
}

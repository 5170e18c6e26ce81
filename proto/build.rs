//! Compiles the `.proto` files with protox: no `protoc` needed, nothing generated is checked in.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "feeder.proto",
        "policy.proto",
        "rules.proto",
        "link.proto",
        "query.proto",
        "sinks.proto",
        "policies.proto",
        "operate.proto",
        "enrolment.proto",
        "downlink.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let set = protox::compile(files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&set),
    )?;
    tonic_prost_build::configure()
        // EventData in byte order, so that one message has one encoding.
        .btree_map(".feeder")
        .bytes(".cresset.link.v1")
        .bytes(".cresset.query.v1")
        .bytes(".cresset.sinks.v1")
        .bytes(".cresset.policies.v1")
        .bytes(".cresset.operate.v1")
        .bytes(".cresset.enrolment.v1")
        .compile_fds(set)?;
    Ok(())
}

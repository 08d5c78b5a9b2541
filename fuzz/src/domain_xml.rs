//! A domain's XML as libvirt gives it: what is in it, a user wrote.

use surrogate::hypervisor::libvirt::domain_xml;

pub(crate) fn run(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    match domain_xml::parse(&text) {
        Ok(found) => {
            assert!(found.disks.iter().all(|disk| !disk.target.is_empty()));
            for interface in &found.interfaces {
                assert!(interface.refusal().is_none_or(|why| !why.is_empty()));
            }
            !found.interfaces.is_empty()
        }
        Err(why) => {
            assert!(!why.is_empty());
            false
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [BRIDGE, ODD].map(|text| text.as_bytes().to_vec()).to_vec()
}

const BRIDGE: &str = r"<domain type='kvm' id='7'>
  <name>web1</name>
  <devices>
    <disk type='file' device='disk'><source file='/x'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sda'/><mirror type='file' job='copy'/></disk>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:11'/>
      <source bridge='br0' network='default'/>
      <target dev='vnet3'/>
      <model type='virtio'/>
      <port isolated='no'/>
    </interface>
  </devices>
</domain>";

const ODD: &str = r#"<?xml version="1.0"?><!-- a &amp; b --><domain><devices>
<interface type="direct"><source dev="eth0" mode="bridge"/><filterref filter="clean-traffic"/></interface>
<interface type="bridge"><virtualport type="openvswitch"/><port isolated="yes"/></interface>
<interface type="user"><mac address="&#53;2:54:00:00:00:12"/></interface>
<disk><target dev="a&lt;b"/></disk></devices><metadata><![CDATA[<interface/>]]></metadata></domain>"#;

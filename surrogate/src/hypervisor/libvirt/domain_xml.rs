//! The few facts of a domain's XML that a stand-in needs: its NICs and its disks.
//!
//! Pure. The text comes from libvirt, but what is in it a user wrote: it is read in one pass without
//! a tree, nothing is expanded, and text that is too long or nests too deeply is refused.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::guest::identity::Mac;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainXml {
    /// In the order of the text.
    pub interfaces: Vec<Interface>,
    /// In the order of the text.
    pub disks: Vec<Disk>,
}

/// One `<interface>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// "bridge", "network", "ethernet", "direct", ...
    pub kind: String,
    /// `<mac address=...>`, if it is one.
    pub mac: Option<Mac>,
    /// `<source bridge=...>`: also filled in by libvirt for a running domain on a network.
    pub bridge: Option<String>,
    /// `<source network=...>`.
    pub network: Option<String>,
    /// `<source dev=...>` of a macvtap.
    pub source_device: Option<String>,
    /// `<target dev=...>`: the tap; libvirt names one when the domain starts.
    pub target: Option<String>,
    /// `<filterref filter=...>`.
    pub filter: Option<String>,
    /// `<port isolated='yes'/>`.
    pub isolated: bool,
    /// `<virtualport type=...>`, as for Open vSwitch.
    pub virtual_port: Option<String>,
}

/// One `<disk>` with a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `<target dev=...>`: what commands call it.
    pub target: String,
    /// `<mirror>`: a copy or an active commit runs.
    pub mirrored: bool,
}

impl Interface {
    /// Why we cannot stand in for it, as far as the XML tells. One line.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        if let Some(filter) = &self.filter {
            return Some(format!(
                "filtered by nwfilter \"{filter}\", which frames through us would not pass"
            ));
        }
        if self.isolated {
            return Some("its port is isolated (<port isolated='yes'/>)".to_owned());
        }
        if let Some(kind) = &self.virtual_port {
            return Some(format!("on a virtual port of type {kind}, not a Linux bridge"));
        }
        match self.kind.as_str() {
            "bridge" | "network" | "ethernet" => None,
            "direct" => {
                let device = self.source_device.as_deref().unwrap_or("a host device");
                Some(format!("a macvtap on {device} (type \"direct\"), not a port of a Linux bridge"))
            }
            other => Some(format!("of type \"{other}\", which has no port on a Linux bridge")),
        }
    }
}

/// Reads the XML of one domain.
///
/// # Errors
/// What is wrong with it, one line.
pub fn parse(xml: &str) -> Result<DomainXml, String> {
    if xml.len() > LONGEST {
        return Err(format!("the domain's XML has {} bytes, more than {LONGEST}", xml.len()));
    }
    let mut reader = Reader::from_str(xml);
    let mut found = DomainXml::default();
    let mut path = Vec::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(element) => {
                path.push(element.name().into_inner().to_owned());
                if path.len() > DEEPEST {
                    return Err(format!("the domain's XML nests deeper than {DEEPEST}"));
                }
                found.take(&path, &element)?;
            }
            Event::Empty(element) => {
                path.push(element.name().into_inner().to_owned());
                found.take(&path, &element)?;
                path.pop();
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof if path.is_empty() => break,
            Event::Eof => return Err("the domain's XML ends too early".to_owned()),
            _ => {}
        }
    }
    // A drive without a medium has no target worth a name; everything else has one.
    found.disks.retain(|disk| !disk.target.is_empty());
    Ok(found)
}

impl DomainXml {
    fn take(&mut self, path: &[String], element: &BytesStart<'_>) -> Result<(), String> {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let Some(inside) = path.strip_prefix(&["domain", "devices"]) else { return Ok(()) };
        let attribute = |name| attribute(element, name);
        match inside {
            ["interface"] => {
                let kind = attribute("type")?.unwrap_or_default();
                self.interfaces.push(Interface { kind, ..Interface::default() });
            }
            ["interface", child] => {
                let Some(interface) = self.interfaces.last_mut() else { return Ok(()) };
                match *child {
                    "mac" => interface.mac = attribute("address")?.and_then(|text| text.parse().ok()),
                    "source" => {
                        interface.bridge = attribute("bridge")?;
                        interface.network = attribute("network")?;
                        interface.source_device = attribute("dev")?;
                    }
                    "target" => interface.target = attribute("dev")?,
                    "filterref" => interface.filter = attribute("filter")?,
                    "port" => interface.isolated = attribute("isolated")?.as_deref() == Some("yes"),
                    "virtualport" => interface.virtual_port = Some(attribute("type")?.unwrap_or_default()),
                    _ => {}
                }
            }
            ["disk"] => self.disks.push(Disk { target: String::new(), mirrored: false }),
            ["disk", child] => {
                let Some(disk) = self.disks.last_mut() else { return Ok(()) };
                match *child {
                    "target" => disk.target = attribute("dev")?.unwrap_or_default(),
                    "mirror" => disk.mirrored = true,
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = element.try_get_attribute(name).map_err(|error| error.to_string())?;
    let value = found.map(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0)).transpose();
    Ok(value.map_err(|error| error.to_string())?.map(std::borrow::Cow::into_owned))
}

/// Far above what libvirt itself writes for hundreds of devices.
const LONGEST: usize = 4 << 20;

const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(xml: &str) -> Interface {
        let xml = format!("<domain type='kvm'><name>a</name><devices>{xml}</devices></domain>");
        let mut parsed = parse(&xml).unwrap();
        assert_eq!(parsed.interfaces.len(), 1);
        parsed.interfaces.remove(0)
    }

    #[test]
    fn a_bridge_nic_of_a_running_domain_is_read_whole() {
        let nic = interface(
            "<interface type='bridge'>
               <mac address='52:54:00:00:00:11'/>
               <source bridge='br0'/>
               <target dev='vnet3'/>
               <model type='virtio'/>
               <alias name='net0'/>
               <rom enabled='no'/>
             </interface>",
        );
        assert_eq!(nic.mac, Some(Mac([0x52, 0x54, 0, 0, 0, 0x11])));
        assert_eq!((nic.bridge.as_deref(), nic.target.as_deref()), (Some("br0"), Some("vnet3")));
        assert_eq!(nic.refusal(), None);
    }

    #[test]
    fn a_network_nic_has_its_bridge_while_it_runs_and_only_its_network_else() {
        let running = interface(
            "<interface type='network'><source network='default' portid='6c61' bridge='virbr0'/>
             <target dev='vnet0'/></interface>",
        );
        assert_eq!(
            (running.network.as_deref(), running.bridge.as_deref()),
            (Some("default"), Some("virbr0"))
        );
        let off = interface("<interface type='network'><source network='default'/></interface>");
        assert_eq!((off.network.as_deref(), off.bridge, off.target), (Some("default"), None, None));
        assert_eq!(running.refusal(), None);
    }

    #[test]
    fn an_ethernet_nic_has_the_tap_that_was_made_for_it() {
        let nic = interface("<interface type='ethernet'><target dev='g4' managed='no'/></interface>");
        assert_eq!((nic.target.as_deref(), nic.bridge.as_deref(), nic.refusal()), (Some("g4"), None, None));
    }

    #[test]
    fn nics_we_cannot_stand_in_for_are_refused_with_the_reason() {
        let cases = [
            (
                "<interface type='bridge'><source bridge='br0'/><filterref filter='clean-traffic'>
                   <parameter name='IP' value='192.0.2.11'/></filterref></interface>",
                "filtered by nwfilter \"clean-traffic\"",
            ),
            ("<interface type='bridge'><source bridge='br0'/><port isolated='yes'/></interface>", "isolated"),
            (
                "<interface type='bridge'><source bridge='ovs0'/><virtualport type='openvswitch'/></interface>",
                "type openvswitch, not a Linux bridge",
            ),
            ("<interface type='direct'><source dev='eno1' mode='bridge'/></interface>", "a macvtap on eno1"),
            ("<interface type='user'/>", "type \"user\""),
            ("<interface type='hostdev' managed='yes'/>", "type \"hostdev\""),
            ("<interface type='vhostuser'><source type='unix' path='/s'/></interface>", "type \"vhostuser\""),
        ];
        for (xml, wanted) in cases {
            let refusal = interface(xml).refusal().unwrap();
            assert!(refusal.contains(wanted), "{refusal}");
        }
        let open = interface("<interface type='bridge'><port isolated='no'/></interface>");
        assert_eq!(open.refusal(), None);
    }

    #[test]
    fn only_elements_in_their_place_count() {
        let xml = "<domain xmlns:x='http://example.invalid/'><metadata><x:devices><interface type='bridge'/>
              </x:devices><domain><devices><interface type='user'/></devices></domain></metadata>
            <devices><hostdev><source><interface type='pci'/></source></hostdev>
              <disk type='file'><source file='/a'/><target dev='vda' bus='virtio'/>
                <mirror type='file' job='copy'><source file='/b'/><target dev='no'/></mirror></disk>
              <disk device='cdrom'><target dev='sda'/></disk>
              <disk><backingStore><target dev='not-mine'/></backingStore></disk>
            </devices></domain>";
        let parsed = parse(xml).unwrap();
        assert_eq!(parsed.interfaces, []);
        let disk = |target: &str, mirrored| Disk { target: target.to_owned(), mirrored };
        assert_eq!(parsed.disks, [disk("vda", true), disk("sda", false)]);
    }

    #[test]
    fn names_are_unescaped() {
        let nic = interface("<interface type='network'><source network='a&amp;b &lt;c&gt;'/></interface>");
        assert_eq!(nic.network.as_deref(), Some("a&b <c>"));
    }

    #[test]
    fn broken_text_is_an_error_and_no_more() {
        let deep = "<a>".repeat(100);
        let long = " ".repeat(LONGEST + 1);
        for xml in ["<domain", "<domain></b>", "<domain><devices>", deep.as_str(), long.as_str()] {
            assert!(parse(xml).is_err());
        }
        assert!(parse("<domain><devices><interface type='&unknown;'/></devices></domain>").is_err());
        assert_eq!(parse(""), Ok(DomainXml::default()));
    }
}

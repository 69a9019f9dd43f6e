//! What would be opened for a path, as commands that can be pasted. Nothing is opened.

use std::path::Path;

use crate::engine::user::nodes::Access;
use crate::names::{MappingName, RunId};
use crate::reach::host::{Host, HostError};
use crate::reach::lines;
use crate::reach::luks::Luks;
use crate::reach::mounting;
use crate::reach::plan::{self, Opening, Plan};
use crate::reach::volumes;

impl Host {
    /// The commands that would make a path exist, in their order; none if it exists. The names are
    /// examples.
    ///
    /// # Errors
    /// When nothing tells how to open it.
    pub async fn plan(&mut self, path: &Path, access: Access) -> Result<Vec<String>, HostError> {
        let openings = match self.next_openings(path)? {
            Plan::Open(openings) => openings,
            Plan::AskLvm => {
                self.ask_lvm(path).await?;
                match self.next_openings(path)? {
                    Plan::Open(openings) => openings,
                    // It was asked.
                    Plan::AskLvm => Vec::new(),
                }
            }
        };
        let run = RunId::example();
        let mut opened = self.opened.clone();
        let commands = (1_usize..).zip(openings).map(|(number, opening)| {
            let device = |named: &str| {
                let path = lines::device_path(named).unwrap_or_default();
                opened
                    .located(&path)
                    .unwrap_or_else(|| plan::resolved(&path, &opened))
            };
            match opening {
                Opening::Volume { group, volume } => {
                    volumes::activation(&group, &volume, self.scope()).to_string()
                }
                Opening::Mount(entry) => {
                    let device = device(&entry.device);
                    mounting::mounting(&entry, &device, &entry.target, access).to_string()
                }
                Opening::Crypt(entry) => {
                    let name = MappingName::host(&run, number, &entry.name);
                    let device = device(&entry.device);
                    let luks = Luks {
                        entry: &entry,
                        device: &device,
                        access,
                    };
                    let key = luks.container().file;
                    let command = luks.opening(&name, key.as_ref()).to_string();
                    opened.add(&entry, &Path::new(plan::MAPPER).join(name.as_str()));
                    command
                }
            }
        });
        Ok(commands.collect())
    }
}

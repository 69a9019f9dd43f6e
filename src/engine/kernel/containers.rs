//! A guest's encrypted containers: dm-crypt decrypts them.

use std::path::PathBuf;

use crate::crypt::VolumeKey;
use crate::engine::kernel::session::{Session, mapped, number_of};
use crate::engine::kernel::table::{self, Cipher, Tags};
use crate::engine::session::SessionError;
use crate::engine::shown_disk::ShownImage;
use crate::engine::user::nodes::Access;
use crate::layers::dormant::ClosedContainer;
use crate::layers::extent::ImageIndex;
use crate::layers::luks::integrity::{Protected, Superblock};
use crate::ledger::Ledger;
use crate::names::MappingRole;
use crate::units::Bytes;

impl Session {
    /// Opens a container by its volume key: it is a disk of its own from then on, kept apart from the
    /// one that it lies on, so that what is thrown away of it is encrypted too.
    ///
    /// # Errors
    /// When it cannot be what its header says, or the kernel does not know its cipher; nothing of it
    /// is left then.
    pub async fn unlock(
        &mut self,
        ledger: &mut Ledger,
        closed: &ClosedContainer,
        key: &VolumeKey,
    ) -> Result<(ImageIndex, ShownImage), SessionError> {
        let mark = ledger.mark();
        match self.decrypted(ledger, closed, key).await {
            Ok(opened) => Ok(opened),
            Err(error) => {
                ledger.undo_to(mark).await?;
                Err(error)
            }
        }
    }

    async fn decrypted(
        &mut self,
        ledger: &mut Ledger,
        closed: &ClosedContainer,
        key: &VolumeKey,
    ) -> Result<(ImageIndex, ShownImage), SessionError> {
        let header = &closed.container.header;
        let cipher = Cipher {
            name: &header.encryption,
            key: &key.digits(),
            iv_tweak: header.iv_tweak,
            sector_size: header.sector_size,
            discards: header.discards,
        };
        let (access, node) = match &closed.protected {
            None => {
                let length = header.length(closed.extents.size())?;
                let under = closed.extents.slice(header.offset, length)?;
                let (access, _) = self.may_write(std::slice::from_ref(&under), closed.read_only);
                let device = number_of(&self.layer(ledger, &under, access).await?)?;
                let table = table::encrypted(length, cipher, device, Bytes::ZERO)?;
                let (_, node) = mapped(ledger, MappingRole::Container, &table, access)?;
                (access, node)
            }
            Some(protected) => {
                self.with_checksums(ledger, closed, protected, cipher)
                    .await?
            }
        };
        let (image, disk) = self.add_device(node, access, true)?;
        Ok((image, ShownImage::Disk(disk)))
    }

    /// The device that decrypts one with checksums, and whether it may be written to. dm-integrity
    /// replays its journal in any case: where nothing may be written, in a throw-away snapshot.
    async fn with_checksums(
        &mut self,
        ledger: &mut Ledger,
        closed: &ClosedContainer,
        protected: &Protected,
        cipher: Cipher<'_>,
    ) -> Result<(Access, PathBuf), SessionError> {
        let offset = closed.container.header.offset;
        let room = closed.extents.size().saturating_sub(offset);
        let under = closed.extents.slice(offset, room)?;
        let (access, writes) = self.may_write(std::slice::from_ref(&under), closed.read_only);
        let device = number_of(&self.device_for(ledger, &under, writes).await?)?;
        let Superblock {
            tag_size,
            provided,
            block_size,
        } = protected.superblock;
        let tags = Tags {
            size: tag_size,
            block_size,
            journal: protected.journal,
        };
        let table = table::integrity(provided, tags, device, Bytes::ZERO)?;
        let (_, checked) = mapped(ledger, MappingRole::Container, &table, Access::Write)?;
        let cipher = Cipher {
            name: &protected.encryption,
            ..cipher
        };
        let table = table::authenticated(provided, cipher, tag_size, number_of(&checked)?)?;
        let (_, node) = mapped(ledger, MappingRole::Container, &table, access)?;
        Ok((access, node))
    }
}

//! A guest's encrypted containers: dm-crypt decrypts them.

use crate::crypt::VolumeKey;
use crate::engine::kernel::session::{Session, mapped};
use crate::engine::kernel::table::{self, Cipher, DeviceNumber};
use crate::engine::session::SessionError;
use crate::engine::shown_disk::ShownImage;
use crate::engine::user::nodes::Access;
use crate::layers::dormant::ClosedContainer;
use crate::layers::extent::ImageIndex;
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
        let length = header.length(closed.extents.size())?;
        let under = closed.extents.slice(header.offset, length)?;
        let access = Access::of(!closed.read_only && self.is_writable(&under));
        let device = self.layer(ledger, &under, access).await?;
        let number = DeviceNumber::of(&device).map_err(SessionError::file(&device))?;
        let cipher = Cipher {
            name: &header.encryption,
            key: &key.digits(),
            iv_tweak: header.iv_tweak,
            sector_size: header.sector_size,
            discards: header.discards,
        };
        let table = table::encrypted(length, cipher, number, Bytes::ZERO)?;
        let (_, node) = mapped(ledger, MappingRole::Container, &table, access)?;
        let (image, disk) = self.add_device(node, access, true)?;
        Ok((image, ShownImage::Disk(disk)))
    }
}

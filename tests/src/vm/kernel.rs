use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A kernel's package, unpacked.
pub(super) struct Kernel {
    image: PathBuf,
    release: String,
    /// By name, with underscores, as they name each other.
    modules: HashMap<String, PathBuf>,
    /// What is inside the image and needs no file.
    builtin: String,
}

/// A module as the kernel loads it.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) image: Vec<u8>,
}

impl Kernel {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let images =
            fs::read_dir(folder.join("boot")).with_context(|| folder.display().to_string())?;
        let names = images.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        let release = names.iter().find_map(|name| name.strip_prefix("vmlinuz-"));
        let release = release.with_context(|| format!("no vmlinuz in {}", folder.display()))?;
        let tree = folder.join("lib/modules").join(release);
        let mut modules = HashMap::new();
        collect(&tree.join("kernel"), &mut modules)?;
        let builtin =
            fs::read_to_string(tree.join("modules.builtin")).context("modules.builtin")?;
        let image = folder.join(format!("boot/vmlinuz-{release}"));
        Ok(Self { image, release: release.to_owned(), modules, builtin })
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// As `uname -r` says it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// These modules and all that they depend on, each behind what it depends on. The package has no such list: its
    /// installation would make one.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        if order.iter().any(|module| module.name == name) || self.is_builtin(name) {
            return Ok(());
        }
        let Some(path) = self.modules.get(name) else {
            bail!("Linux {} has no module {name}", self.release)
        };
        let image = read(path)?;
        for needed in depends(&image) {
            self.add(&needed, order)?;
        }
        order.push(Module { name: name.to_owned(), image });
        Ok(())
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name))
    }
}

fn collect(folder: &Path, modules: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if let Some(name) = module_name(&path) {
            modules.insert(name, path);
        }
    }
    Ok(())
}

/// `virtio_rng` for `virtio-rng.ko` and `virtio-rng.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// Uncompressed, because not every kernel does that itself.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| path.display().to_string());
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
    let output = output.context("xz: install xz-utils")?;
    ensure!(output.status.success(), "{}: {output:?}", path.display());
    Ok(output.stdout)
}

/// `depends=a,b` among the strings that a module says of itself, each ended by NUL.
fn depends(image: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = image.windows(FIELD.len()).position(|octets| octets == FIELD) else {
        return Vec::new();
    };
    let list = image[at + FIELD.len()..].split(|&octet| octet == 0).next().unwrap_or_default();
    let names = list.split(|&octet| octet == b',').filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_what_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("lib/modules/6.1");
        fs::create_dir_all(tree.join("kernel/net")).unwrap();
        fs::create_dir_all(folder.path().join("boot")).unwrap();
        fs::write(folder.path().join("boot/vmlinuz-6.1"), "").unwrap();
        fs::write(tree.join("modules.builtin"), "kernel/drivers/virtio/virtio.ko\n").unwrap();
        let module = |name: &str, text: &[u8]| {
            fs::write(tree.join("kernel/net").join(name), text).unwrap();
        };
        module("card.ko", b"\x7fELF\0license=GPL\0depends=fail-over,virtio\0name=card\0");
        module("fail-over.ko", b"\x7fELF\0depends=\0name=failover\0");
        let kernel = Kernel::open(folder.path()).unwrap();
        let modules = kernel.modules(&["card", "fail_over"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["fail_over", "card"]);
        let error = kernel.modules(&["nothing"]).err().unwrap().to_string();
        assert_eq!(error, "Linux 6.1 has no module nothing");
    }
}

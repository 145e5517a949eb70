import Glibc

/// Reading files. The only place of this module that touches the system, besides the host's name.
extension Settings {
    /// The settings in a file.
    ///
    /// - Parameter path: nil for `/etc/tidegate/tidegate.yaml`, which may be missing: a useful gateway runs
    ///   without. A file that was named must be there.
    /// - Throws: everything that is wrong, in the order of the file.
    package static func load(path: String?) throws(SettingsErrors) -> Settings {
        let file = path ?? defaultPath
        let bytes: [UInt8]
        do {
            bytes = try read(file: file, upTo: YamlLimits.bytesMax)
        } catch {
            if path == nil, error.code == ENOENT { return Settings(gateway: Address.hostName()) }
            let write =
                error.code == ENOENT
                ? "the path of a file that exists, or no --config at all to run with the defaults" : nil
            throw SettingsErrors([
                SettingsError(
                    file: file, place: nil, wrong: "the file cannot be read: \(error.text)", write: write)
            ])
        }
        var settings = try parse(bytes, file: file, hostName: Address.hostName())
        let beside = file.lastIndex(of: "/").map { String(file[..<$0]) + "/" } ?? ""
        settings.deviceProfiles = try ProfileSettings.load(
            settings.deviceProfilesPath ?? beside + ProfileSettings.directoryName,
            isNamed: settings.deviceProfilesPath != nil,
            among: ProfileSurroundings(
                listeners: settings.listeners, uplinks: settings.uplinks.map(\.name)))
        return settings
    }
}

extension CredentialSettings.Password {
    /// The password itself; of a file all but one line end at its end.
    ///
    /// - Throws: the file is missing, unreadable, empty or longer than MQTT can say.
    package func bytes() throws(SettingsErrors) -> [UInt8] {
        switch self {
        case .written(let text):
            return Array(text.utf8)
        case .file(let path):
            do throws(FileError) {
                var bytes = try read(file: path, upTo: 65_537)
                if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
                if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
                guard !bytes.isEmpty else { throw FileError(code: nil, text: "it is empty") }
                guard bytes.count <= 65_535 else { throw FileError(code: nil, text: "it is too long") }
                return bytes
            } catch {
                throw SettingsErrors([
                    SettingsError(
                        file: path, place: nil, wrong: "the password cannot be read: \(error.text)",
                        write: "the password and nothing else into a file that the user tidegate may read")
                ])
            }
        }
    }
}

struct FileError: Error {
    /// errno; nil when the system had nothing to say against it.
    var code: Int32?
    var text: String

    /// What the last call of the system failed with.
    static var last: FileError {
        let code = errno
        return FileError(code: code, text: String(cString: strerror(code)))
    }
}

/// The whole of a file of at most `limit` bytes.
func read(file: String, upTo limit: Int) throws(FileError) -> [UInt8] {
    let descriptor = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw FileError.last }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw FileError.last }
    guard status.st_mode & S_IFMT != S_IFDIR else { throw FileError(code: EISDIR, text: "it is a directory") }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = Glibc.read(descriptor, &chunk, chunk.count)
        if count < 0, errno == EINTR { continue }
        guard count >= 0 else { throw FileError.last }
        if count == 0 { return bytes }
        bytes.append(contentsOf: chunk[..<count])
        guard bytes.count <= limit else {
            throw FileError(code: EFBIG, text: "it has more than \(limit) bytes")
        }
    }
}

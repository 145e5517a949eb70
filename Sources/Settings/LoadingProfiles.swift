import Glibc

/// Reading a directory of device profiles.
extension ProfileSettings {
    /// More files than this are no profiles for people.
    package static let countMax = 256
    /// What the directory beside the configuration file is called.
    static let directoryName = "device-profiles"

    /// The profiles in a directory, in the order in which they are tried; the default, if there is one, is last.
    ///
    /// - Parameter isNamed: whether the operator wrote the path; else the directory may be missing.
    /// - Throws: everything that is wrong in any of the files.
    static func load(
        _ directory: String, isNamed: Bool, among surroundings: ProfileSurroundings
    ) throws(SettingsErrors) -> [ProfileSettings] {
        let names: [String]
        do throws(FileError) { names = try files(in: directory) } catch {
            if !isNamed, error.code == ENOENT { return [] }
            throw SettingsErrors([
                SettingsError(
                    file: directory, place: nil, wrong: "the device profiles cannot be read: \(error.text)",
                    write: "device-profiles: the directory they are in")
            ])
        }
        var errors: [SettingsError] = []
        var profiles: [ProfileSettings] = []
        for name in names {
            let file = "\(directory)/\(name)"
            do throws(SettingsErrors) {
                profiles.append(try parse(contents(of: file), file: file, among: surroundings))
            } catch {
                errors += error.errors
            }
        }
        profiles.sort { ($0.order ?? .max, $0.file) < ($1.order ?? .max, $1.file) }
        errors += clashes(in: profiles)
        guard errors.isEmpty else { throw SettingsErrors(errors) }
        return profiles
    }

    private static func contents(of file: String) throws(SettingsErrors) -> [UInt8] {
        do throws(FileError) { return try read(file: file, upTo: YamlLimits.bytesMax) } catch {
            throw SettingsErrors([
                SettingsError(
                    file: file, place: nil, wrong: "the file cannot be read: \(error.text)", write: nil)
            ])
        }
    }

    /// What is wrong with profiles that are good by themselves.
    private static func clashes(in profiles: [ProfileSettings]) -> [SettingsError] {
        var errors: [SettingsError] = []
        for (i, profile) in profiles.enumerated() {
            let earlier = profiles[..<i]
            if let other = earlier.first(where: { $0.profile.name == profile.profile.name }) {
                errors.append(
                    SettingsError(
                        file: profile.file, place: nil,
                        wrong: "\(other.file) has a profile of the name \"\(profile.profile.name)\" already",
                        write: "profile: a name of its own"))
            }
            guard let other = earlier.first(where: { $0.order == profile.order }) else { continue }
            errors.append(
                profile.order.map {
                    SettingsError(
                        file: profile.file, place: nil,
                        wrong: "\(other.file) has the order \($0) already, and one must be tried first",
                        write: "order: \($0 + 1)")
                }
                    ?? SettingsError(
                        file: profile.file, place: nil,
                        wrong: "\(other.file) is the default already: it has no match",
                        write: "match and order in one of them"))
        }
        return errors
    }

    /// The names that end in `.yaml`, in the order of their bytes; hidden ones are an editor's.
    private static func files(in directory: String) throws(FileError) -> [String] {
        guard let stream = opendir(directory) else { throw FileError.last }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                guard errno == 0 else { throw FileError.last }
                break
            }
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasSuffix(".yaml"), !name.hasPrefix(".") { names.append(name) }
        }
        guard names.count <= countMax else {
            throw FileError(code: nil, text: "there are more than \(countMax) files")
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }
}

/// What a file system was mounted with, as `/proc/self/mountinfo` tells it (proc(5)), as far as it decides whether
/// a sync means anything.
struct MountOptions: Equatable {
    /// As the kernel names it: `ext4`, `f2fs`, …
    var fileSystem: String
    /// Of the mount and of the file system.
    var options: Set<String>

    /// - Parameters:
    ///   - mountInfo: the file's text. Of several mounts of one file system the last counts; those options that
    ///     matter here are the same in all.
    ///   - device: of a file on it (`st_dev`), major and minor.
    /// - Complexity: O(bytes)
    init?(mountInfo: String, major: UInt32, minor: UInt32) {
        var found: (fileSystem: String, options: Set<String>)?
        for line in mountInfo.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 6, fields[2] == "\(major):\(minor)",
                let separator = fields[6...].firstIndex(of: "-"), fields.count > separator + 3
            else { continue }
            let options = fields[5].split(separator: ",") + fields[separator + 3].split(separator: ",")
            found = (String(fields[separator + 1]), Set(options.map(String.init)))
        }
        guard let found else { return nil }
        fileSystem = found.fileSystem
        options = found.options
    }

    /// What an operator must know: with these a power cut may take what a sync said was safe.
    func warnings(path: String) -> [String] {
        options.sorted().compactMap { option in
            switch option {
            case "nobarrier", "barrier=0", "fsync_mode=nobarrier":
                """
                \(path) is on \(fileSystem) mounted with \(option): the device's cache is not flushed, and a power cut \
                may lose what was acknowledged. Mount it without, unless the cache has a battery.
                """
            case "data=writeback", "journal_async_commit":
                """
                \(path) is on \(fileSystem) mounted with \(option): after a power cut files may hold what was never \
                written to them. It is found and left out, but better mount it without.
                """
            default: nil
            }
        }
    }
}

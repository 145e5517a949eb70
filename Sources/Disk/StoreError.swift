import Journal

/// Why a store cannot be opened: what is wrong, where, and what to do about it.
package enum StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    case locked(path: String, holder: String)
    case volatileFileSystem(path: String, kind: String)
    case cannot(_ action: String, path: String, SystemError)
    case unknownFeatures(path: String, bits: UInt32)
    case unknownRecordType(path: String, type: UInt8)
    case foreignDirectory(path: String)
    case noStore(path: String)

    package var description: String {
        switch self {
        case .locked(let path, let holder):
            """
            \(path) is in use by another tidegate (\(holder)). Stop that one, or give this one a `state` \
            directory of its own.
            """
        case .volatileFileSystem(let path, let kind):
            """
            \(path) is on \(kind), which keeps nothing through a power cut. Put `state` on a disk (ext4, xfs or \
            f2fs), or allow volatile storage where losing everything is acceptable.
            """
        case .cannot(let action, let path, let error):
            "cannot \(action) \(path): \(error). Check that it exists, whom it belongs to, and the disk."
        case .unknownFeatures(let path, let bits):
            """
            \(path) was written by another version (unknown features 0x\(String(bits, radix: 16))). Run that \
            version; nothing was changed.
            """
        case .unknownRecordType(let path, let type):
            """
            \(path) holds Records of type \(type), which this version does not know. Run the version that wrote \
            them; nothing was changed.
            """
        case .foreignDirectory(let path):
            """
            \(path) holds journal files, but none of them says which store they belong to. Restore FORMAT or a \
            segment from a backup, or move the files away to start empty.
            """
        case .noStore(let path):
            """
            \(path) holds no store: it has neither FORMAT nor a segment. Name the directory that is `state` in the \
            gateway's configuration, with --state or by --config.
            """
        }
    }
}

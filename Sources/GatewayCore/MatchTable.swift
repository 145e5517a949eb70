/// The first look at a client: the Client Identifier patterns of all profiles side by side. Most of them do not agree, and
/// are passed over without a reference count being touched.
struct MatchTable {
    private struct Entry {
        var profile: Int
        var match: Int
        /// In `patterns`; empty where `isForAny`.
        var start: Int
        var end: Int
        /// Any Client Identifier agrees.
        var isForAny: Bool
        var needsUsername: Bool
        var needsCertificate: Bool
    }

    /// In the order in which they are tried.
    private var entries: [Entry] = []
    private var patterns: [UInt8] = []

    /// - Parameter profiles: the matches of each, in the order of the profiles.
    init(_ profiles: [[DeviceMatch]]) {
        for (profile, matches) in profiles.enumerated() {
            for (place, match) in matches.enumerated() {
                let start = patterns.count
                match.clientIdentifier?.append(to: &patterns)
                entries.append(
                    Entry(
                        profile: profile, match: place, start: start, end: patterns.count,
                        isForAny: match.clientIdentifier == nil, needsUsername: match.username != nil,
                        needsCertificate: match.certificateSubject != nil || match.certificateIssuer != nil))
            }
        }
    }

    /// A match that may agree with a device, because nothing that is looked at here speaks against it.
    struct Candidate {
        /// In the table; the next is looked for behind it.
        var entry: Int
        var profile: Int
        var match: Int
    }

    /// - Parameter first: where to begin, 0 at first.
    /// - Complexity: O(bytes of the patterns); nothing is allocated
    func candidate(for device: borrowing DeviceNames, from first: Int) -> Candidate? {
        let hasUsername = device.username != nil
        let hasCertificate = device.certificate != nil
        var identifier = device.clientIdentifier
        return identifier.withUTF8 { identifier in
            patterns.withUnsafeBufferPointer { patterns in
                entries.withUnsafeBufferPointer { entries in
                    for i in first..<entries.count {
                        let entry = entries[i]
                        if entry.needsUsername, !hasUsername { continue }
                        if entry.needsCertificate, !hasCertificate { continue }
                        let pattern = UnsafeBufferPointer(rebasing: patterns[entry.start..<entry.end])
                        if entry.isForAny || Glob.matches(pattern, identifier) {
                            return Candidate(entry: i, profile: entry.profile, match: entry.match)
                        }
                    }
                    return nil
                }
            }
        }
    }
}

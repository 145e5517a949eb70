import GatewayCore

extension Settings {
    /// Serves these listeners instead of the file's own.
    ///
    /// A device profile means a listener by its address: the rules follow it to its new place, and one for an address
    /// that is not served agrees with nobody.
    package mutating func replaceListeners(with others: [ListenerSettings]) {
        let places = listeners.map { listener in others.firstIndex { $0.clashes(with: listener) } }
        listeners = others
        for i in deviceProfiles.indices {
            for j in deviceProfiles[i].profile.matches.indices {
                guard let place = deviceProfiles[i].profile.matches[j].listener else { continue }
                deviceProfiles[i].profile.matches[j].listener =
                    (places.indices.contains(place) ? places[place] : nil) ?? Self.nowhere
            }
        }
    }

    /// No listener has this place.
    private static let nowhere = Int.max
}

import GatewayCore
import Testing

@testable import Settings

@Suite("Listeners that are not the file's")
struct ReplacingListenersTests {
    @Test("A profile's listener is followed by its address, and one that is not served agrees with nobody")
    func followsAddress() throws {
        let (plant, office, tool) = (
            ListenerSettings(.tcp(host: "127.0.0.1", port: 1)),
            ListenerSettings(.tcp(host: "127.0.0.1", port: 2)),
            ListenerSettings(.unix(path: "/run/a.sock", mode: 0o660))
        )
        var settings = Settings(gateway: "g")
        settings.listeners = [plant, office, tool]
        let matches = [
            DeviceMatch(listener: 0), DeviceMatch(listener: 1), DeviceMatch(listener: 2),
            DeviceMatch(clientIdentifier: Glob("a")),
        ]
        settings.deviceProfiles = [
            ProfileSettings(profile: DeviceProfile(name: "p", matches: matches), order: 1, file: "p.yaml")
        ]
        // As they run: another order, another mode, and one that the file has new is not served yet.
        var running = tool
        running.endpoint = .unix(path: "/run/a.sock", mode: 0o600)
        settings.replaceListeners(with: [office, running])
        #expect(settings.listeners == [office, running])
        let listeners = settings.deviceProfiles[0].profile.matches.map(\.listener)
        #expect(Array(listeners[1...]) == [0, 1, nil])
        #expect(try !settings.listeners.indices.contains(#require(listeners[0])))
    }
}

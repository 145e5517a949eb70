/// The Return Codes of CONNACK before MQTT 5 [MQTT311-3.2.2.3].
extension ReasonCode {
    /// nil for a Return Code that is reserved.
    init?(connackReturnCode code: UInt8) {
        switch code {
        case 0: self = .success
        case 1: self = .unsupportedProtocolVersion
        case 2: self = .clientIdentifierNotValid
        case 3: self = .serverUnavailable
        case 4: self = .badUserNameOrPassword
        case 5: self = .notAuthorized
        default: return nil
        }
    }

    /// The nearest that older clients know.
    var connackReturnCode: UInt8 {
        switch self {
        case .success: 0
        case .unsupportedProtocolVersion: 1
        case .clientIdentifierNotValid: 2
        case .badUserNameOrPassword, .badAuthenticationMethod: 4
        case .notAuthorized, .banned, .topicNameInvalid, .retainNotSupported, .qosNotSupported: 5
        default: 3
        }
    }
}

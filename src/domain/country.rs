//! Codes of countries (ISO 3166-1 alpha-2): which are assigned, and what those mean that people write instead.

/// The assigned codes, in order.
const ASSIGNED: [&str; 249] = [
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA", "BB", "BD",
    "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV", "BW", "BY", "BZ", "CA",
    "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CW", "CX", "CY", "CZ", "DE",
    "DJ", "DK", "DM", "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA",
    "GB", "GD", "GE", "GF", "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK",
    "HM", "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM", "JO", "JP",
    "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT",
    "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK", "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS",
    "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ",
    "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE", "RO", "RS",
    "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST",
    "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW",
    "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VI", "VN", "VU", "WF", "WS", "YE", "YT", "ZA",
    "ZM", "ZW",
];

/// User-assigned, and what databases of places call Kosovo.
const KOSOVO: &str = "XK";

/// Codes that no country has, and the country that is meant: reserved, or withdrawn for a single successor.
const MEANT: [(&str, &str); 8] =
    [("BU", "MM"), ("DD", "DE"), ("EL", "GR"), ("FX", "FR"), ("SU", "RU"), ("TP", "TL"), ("UK", "GB"), ("ZR", "CD")];

/// Whether an address may be in a country of this code, which is in capitals.
pub fn exists(code: &str) -> bool {
    code == KOSOVO || ASSIGNED.binary_search(&code).is_ok()
}

/// The code that is meant by one that no country has.
pub fn meant(code: &str) -> Option<&'static str> {
    MEANT.into_iter().find(|(written, _)| *written == code).map(|(_, meant)| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigned_codes_are_in_order_and_no_others_exist() {
        assert!(ASSIGNED.is_sorted());
        for code in ["DE", "GB", "US", "AX", "BQ", "SS", "ZW", "XK"] {
            assert!(exists(code), "{code}");
        }
        for code in ["UK", "EL", "XX", "EU", "AN", "ZZ", "AA", "de", "", "DEU"] {
            assert!(!exists(code), "{code}");
        }
        assert_eq!(meant("UK"), Some("GB"));
        assert!(MEANT.iter().all(|(written, meant)| !exists(written) && exists(meant)));
    }
}
